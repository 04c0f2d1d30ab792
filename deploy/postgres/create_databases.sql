-- Each service owns its database.
CREATE DATABASE registry;
CREATE DATABASE training;
CREATE DATABASE inference;

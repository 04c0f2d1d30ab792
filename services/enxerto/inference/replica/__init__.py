"""What runs inside Ray. Only `application` imports it."""

"""The whole platform on one machine: Ray and the three services as supervised processes."""

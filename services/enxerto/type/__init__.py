"""Generated value types that the contracts share."""

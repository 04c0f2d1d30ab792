"""Pure building blocks that every part shares: errors, resource names, paging, clock."""

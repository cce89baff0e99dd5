"""What a run leaves behind: candidate tables and an offline page to look at and grade them."""

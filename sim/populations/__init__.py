"""What is drawn before anything is painted: deflectors, sources, neighbours, their light and their colours."""

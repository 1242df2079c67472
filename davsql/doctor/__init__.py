"""What an operator ought to look at and forgets: every check says what it found and what to do about it."""

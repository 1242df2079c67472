"""Who may log in: accounts, groups, tokens, and what slows down those who guess. Knows no HTTP and no rules."""

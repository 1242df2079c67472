"""The audit log: who did what, in rows that nobody can change unnoticed."""

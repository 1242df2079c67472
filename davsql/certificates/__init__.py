"""Certificates that davsql makes by itself, and what there is to know of any."""

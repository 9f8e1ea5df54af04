"""`make fuzz [MINUTES=10]`: bytes that nobody thought of, into the parsers and into a running gateway."""

"""The leaderboard: records in, tables and pages out. Never imports torch."""

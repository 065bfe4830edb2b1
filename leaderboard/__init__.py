"""The leaderboard: tables and web pages made from records. Never imports torch."""

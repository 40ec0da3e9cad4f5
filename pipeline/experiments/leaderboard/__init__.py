"""The leaderboard: every detector, with and without XEL, on one feature set and one protocol."""

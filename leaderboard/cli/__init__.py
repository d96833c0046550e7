"""The commands of the leaderboard."""

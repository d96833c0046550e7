"""The models of a track."""

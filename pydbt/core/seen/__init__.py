"""What people and their programs see of a volume: reports in, words, figures and events out."""

"""What a person, a page or a metric sees of a volume: one reading of its status, and one decision how it stands."""

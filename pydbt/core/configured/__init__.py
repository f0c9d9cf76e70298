"""What a machine is configured to replicate: texts of files in, problems and decisions out."""

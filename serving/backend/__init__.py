"""What runs inside Triton. Files here are copied into its model repository and import nothing of penstock."""

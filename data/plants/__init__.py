"""What a plant is, read from plant.toml and tag files; and the plants that come with penstock, with their data."""

"""The batch layer: plans and trains LSTM models over sensor history with Dask, and writes batch views."""

"""The speed layer: turns the journal into closed ticks, windows and predictions with streamz on Dask."""

"""Asks a penstock site's Triton for a prediction, knowing only its address. No line of penstock, no TensorFlow.

usage: stock_client.py HOST:PORT MODEL READINGS.csv   (hourly rows, newest last, a column per tag)
"""

import csv
import json
import sys

import numpy as np
import tritonclient.grpc as triton

address, model, readings = sys.argv[1:]
client = triton.InferenceServerClient(address)
names = [m.name for m in client.get_model_repository_index().models]
told = {k: v.string_value for k, v in client.get_model_config(model).config.parameters.items()}
with open(readings) as file:
    rows = {tag: np.array(column, np.float32) for tag, *column in zip(*csv.reader(file), strict=True)}
step, n = json.loads(told["step"])["ticks"], json.loads(told["window"])
columns = []
for name in json.loads(told["inputs"]):
    how = json.loads(told["prepare"])[name]
    x = np.concatenate([np.full(how["lag"], np.nan, np.float32), rows[how["tag"]]])[: len(rows[how["tag"]])]
    for each in how["steps"]:
        assert each["name"] == "difference"
        x = np.concatenate([np.full(step, np.nan, np.float32), x[step:] - x[:-step]])
    columns.append(x[::-1][: n * step : step][::-1])
window = np.stack(columns, axis=-1)[None].astype(np.float32)
ask = triton.InferInput("window", window.shape, "FP32")
ask.set_data_from_numpy(window)
said = client.infer(model, [ask])
value, version = said.as_numpy("prediction")[0, 0], said.as_numpy("version")[0]
print(
    json.dumps(
        {"models": names, "value": float(value), "unit": json.loads(told["target_unit"])[0], "version": int(version)}
    )
)

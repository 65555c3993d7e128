"""Asks a penstock site's Triton for a prediction, knowing only its address. No line of penstock, no TensorFlow.

usage: stock_client.py HOST:PORT MODEL READINGS.csv   (a row per tick, newest last; a column per tag)
"""

import json
import sys

import numpy as np
import pandas as pd
import tritonclient.grpc as triton

address, model, readings = sys.argv[1:]
client = triton.InferenceServerClient(address)
names = [m.name for m in client.get_model_repository_index(client_timeout=10).models]
config = client.get_model_config(model, client_timeout=10).config
told = {k: json.loads(v.string_value) for k, v in config.parameters.items() if k != "snapshot"}
rows, inputs, step = pd.read_csv(readings), told["prepare"], told["step"]["ticks"]
window = pd.DataFrame({name: rows[inputs[name]["tag"]].shift(inputs[name]["lag"]) for name in told["inputs"]})
for name in told["inputs"]:
    for each in inputs[name]["steps"]:
        assert each["name"] == "difference", f"this short client knows no {each['name']}"
        window[name] = window[name].diff(step)
x = window[::-step][: told["window"]][::-1].to_numpy(np.float32)[np.newaxis]
ask = triton.InferInput("window", x.shape, "FP32")
ask.set_data_from_numpy(x)
said = client.infer(model, [ask], client_timeout=10)
value, version = said.as_numpy("prediction").item(), said.as_numpy("version").item()
print(json.dumps({"models": names, "value": value, "unit": told["target_unit"][0], "version": version}))

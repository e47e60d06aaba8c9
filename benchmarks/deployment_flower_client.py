"""The client of Flower's minimal app: it reads the parameters, changes them, and sends them back."""

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Return parameters that are a little larger; no training, and no torch whose import takes seconds."""
    del context
    arrays = message.content["arrays"].items()
    changed = {name: Array(array.numpy() + np.float32(1e-3)) for name, array in arrays}
    metrics = MetricRecord({"num-examples": 4})
    return Message(RecordDict({"arrays": ArrayRecord(changed), "metrics": metrics}), reply_to=message)

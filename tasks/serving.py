"""A stage's model behind MLflow's ``pyfunc``: images ``uint8 [N, C, H, W]`` to logits ``float32 [N, K]``.

MLflow stores this file, the code it needs and the safetensors: nothing is pickled.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext
from numpy.typing import NDArray


class Classifier(PythonModel):  # type: ignore[misc]  # mlflow ships no types
    """Rebuilds the network from its weights; their digest is checked on the way."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the weights that lie beside this file in the logged model."""
        from tasks.engine import weights

        self.network, _ = weights.load(Path(context.artifacts["weights"]).parent)

    def predict(self, model_input: np.ndarray) -> NDArray[np.float32]:
        """Logits of images, as the engine computes them."""
        from tasks.engine.predict import logits

        return logits(self.network, model_input)


set_model(Classifier())

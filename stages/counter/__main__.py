"""Stage 2 on the command line: python -m stages.counter train|evaluate|predict|calibrate --data DIR --out DIR."""

import sys

from stages.command import run
from stages.counter.calibrate import command as calibrate_command
from stages.counter.detector import CounterConfig
from stages.counter.evaluate import evaluate
from stages.counter.predict import Predictor, load
from stages.counter.train import train
from stages.dataset import Shard


def rows(predictor: Predictor, shard: Shard) -> list[dict[str, object]]:
    """Results on a shard as table rows."""
    return [
        {
            "id": count.id,
            "n_images": len(count.xy_pix),
            "image_x_pix": " ".join(f"{v:.3f}" for v in count.xy_pix[:, 0]),
            "image_y_pix": " ".join(f"{v:.3f}" for v in count.xy_pix[:, 1]),
            "theorem_verdict": count.certificate.verdict,
            "theorem_p_value": count.certificate.p_value,
        }
        for count in predictor.predict(shard.cutouts)
    ]


if __name__ == "__main__":
    if sys.argv[1:2] == ["calibrate"]:
        sys.exit(calibrate_command(sys.argv[2:]))
    sys.exit(run("counter", CounterConfig, train, evaluate, load, rows))

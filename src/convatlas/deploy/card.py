"""The model card beside an exported file."""

from ..papers.counts import counted
from ..weights import Bundle

RUN = {
    "onnx": """import numpy as np, onnxruntime
session = onnxruntime.InferenceSession("{name}")
logits = session.run(None, {{"pixels": pixels}})[0]""",
    "openvino": """import numpy as np, openvino
model = openvino.Core().compile_model("{name}", "CPU")
logits = model({{0: pixels}})[0]""",
    "pt2": """import numpy as np, torch
model = torch._inductor.aoti_load_package("{name}")
logits = model(torch.from_numpy(pixels)).numpy()""",
}

PIXELS = """from PIL import Image
image = Image.open("photo.jpg").convert("RGB")
short = min(image.size)
image = image.resize([{resize} * side // short for side in image.size], Image.Resampling.{method})
left, top = (round((side - {size}) / 2) for side in image.size)
image = image.crop((left, top, left + {size}, top + {size}))
pixels = np.asarray(image)[None]  # uint8 (1, {size}, {size}, 3)"""


def card(bundle: Bundle, to: str, name: str) -> str:
    """Markdown: what the file holds, where it comes from, what was measured, and how to run it without convatlas."""
    pre, (params, macs) = bundle.preprocess, counted(bundle.spec)
    test = bundle.metrics.get("test", {})
    measured = f"{test['accuracy']:.2%} of the test images are right" if "accuracy" in test else "nothing is on record"
    names = ", ".join(bundle.classes[:20]) + (", ..." if len(bundle.classes) > 20 else "")
    library, _, code = RUN[to].format(name=name).partition("\n")
    pixels = PIXELS.format(size=pre.size, resize=pre.resize, method=pre.interpolation.upper())
    return f"""# {bundle.spec.name}, {len(bundle.classes)} classes

- **Network**: {bundle.spec.name} ({bundle.spec.paper}), {params:,} parameters, {macs:,} multiply-adds an image
- **Takes**: uint8 (N, {pre.size}, {pre.size}, 3), RGB; the shorter side resized to {pre.resize} px
  ({pre.interpolation}, antialiased), the centre cropped; normalisation is inside
- **Gives**: `logits`, float32 (N, {len(bundle.classes)}), of these classes: {names}
- **Measured**: {measured}
- **From**: {bundle.source or "not stated"}; weights sha256 {bundle.digest()}
- **Licence of the weights**: {bundle.licence}

Class names and preprocessing are also in the file itself, as JSON under `convatlas`. Without convatlas:

```python
{library}
{pixels}
{code}
print(logits.argmax(1))
```
"""

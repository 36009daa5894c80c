"""ShuffleNet elsewhere: nowhere the same."""

from .peer import Peer, Unlike

PEERS: tuple[Peer, ...] = ()
ROUND = "It joins the two branches of a unit with stride 2 the other way round"
NAMES = {f"shufflenet.g{g}": f"shufflenet_g{g}_w1" for g in (2, 3, 4, 8)} | {"shufflenet.g3.x0_5": "shufflenet_g3_wd2"}
UNLIKE = (
    *(Unlike("pytorchcv", theirs, ours, f"{ROUND}, so that its groups see other channels.")
      for ours, theirs in NAMES.items()),
    *(Unlike("pytorchcv", f"shufflenet_g1_{theirs}", f"shufflenet.g1{ours}",
             f"{ROUND}: the same up to the order of channels.")
      for ours, theirs in (("", "w1"), (".x0_5", "wd2"))),
    *(Unlike("pytorchcv", f"shufflenet_g{g}_wd4", f"shufflenet.g{g}.x0_25",
             "Its first convolution has 6 channels; the paper's complexities come out with 12.")
      for g in (1, 3)),
)  # fmt: skip

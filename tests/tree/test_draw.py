"""The diagrams: what they say, that nothing overlaps, and what they need."""

import sys
from functools import cache
from itertools import combinations
from xml.etree import ElementTree

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from convatlas import tree, zoo
from convatlas.errors import ConfigError, ResourceError
from convatlas.tree import (
    SE,
    Concat,
    Gate,
    Net,
    Residual,
    Shuffle,
    ZeroPad,
    classifier,
    conv_act,
    conv_bn_act,
    cost,
    seq,
)
from convatlas.tree.draw import draw
from convatlas.tree.draw.labels import label
from convatlas.tree.draw.layout import layout
from convatlas.tree.draw.marks import BOLD, SIZES, TIMES, Block, Label, Panel, Wire
from convatlas.tree.draw.page import PAGE, page, rounded

from forms import FORMS, but_the_deep, every_form

BOXES = ("conv", "fc", "pool", "other")


def inception() -> Concat:
    return Concat(
        one=conv_bn_act(64, 16),
        three=seq(reduce=conv_bn_act(64, 24), conv=conv_bn_act(24, 32, 3)),
        five=seq(reduce=conv_bn_act(64, 4), conv=conv_bn_act(4, 8, 5)),
        pool=seq(pool=nn.MaxPool2d(3, 1, 1), project=conv_bn_act(64, 8)),
    )


def dense_layer(c: int) -> Concat:
    new = seq(norm=nn.BatchNorm2d(c), act=nn.ReLU(), conv=nn.Conv2d(c, 32, 3, padding=1))
    return Concat(x=nn.Identity(), new=new)


def side_head(c: int) -> nn.Sequential:
    return seq(pool=nn.AvgPool2d(5, 3), conv=conv_act(c, 128), flatten=nn.Flatten(), fc=nn.Linear(128 * 18 * 18, 10))


def with_side_heads() -> Net:
    parts = {
        "stem": conv_bn_act(3, 64, 7, stride=2),
        "pool": nn.MaxPool2d(3, 2, 1),
        "mixed1": nn.Sequential(inception(), inception()),
        "mixed2": seq(a=inception(), drop=nn.Dropout(0.4)),
        "se": Residual(seq(conv=conv_bn_act(64, 64, 3), se=SE()(64))),
        "dense": nn.Sequential(*[dense_layer(64 + 32 * i) for i in range(6)]),
        "head": classifier(64 + 32 * 6, 10),
    }
    return Net(parts, aux={"mixed1": side_head(64), "mixed2": side_head(64)})


@pytest.fixture(autouse=True)
def on_meta():
    with torch.device("meta"):
        yield


@cache
def page_named(name: str) -> Block:
    return page_of(zoo.spec(name).skeleton(), zoo.spec(name).size)


def page_of(net: nn.Module, size: int = 224, in_channels: int = 3) -> Block:
    return page(net, cost(net, size, in_channels, aux=True), (in_channels, size, size), "A title")


def texts(block: Block) -> list[str]:
    return [mark.text for mark in block.marks if isinstance(mark, Label)]


def words_of_svg(svg: str) -> str:
    return "\n".join(ElementTree.fromstring(svg).itertext())


# ---- every network


@every_form
def test_a_network_draws_and_names_all_its_leaves(name):
    net = zoo.spec(name).skeleton()
    svg = draw(net, size=zoo.spec(name).size, title=name)
    words = words_of_svg(svg)
    assert name in words
    assert all(part in words for part in net.parts)
    for leaf in net.modules():
        if next(leaf.children(), None) is None and not isinstance(leaf, nn.ModuleDict):
            assert label(leaf) in words


@but_the_deep
def test_nothing_overlaps(name):
    check_geometry(page_named(name))


def test_nothing_overlaps_with_branches_gates_and_side_heads():
    check_geometry(page_of(with_side_heads()))


LEAVES = st.builds(
    lambda make: make(),
    st.sampled_from(
        [
            lambda: nn.Conv2d(8, 8, 3, padding=1),
            lambda: conv_bn_act(8, 128, 3, stride=2),
            lambda: nn.BatchNorm2d(8),
            lambda: nn.ReLU(),
            lambda: nn.AdaptiveAvgPool2d(1),
            lambda: nn.Identity(),
            lambda: nn.Sequential(),
        ]
    ),
)
TREES = st.recursive(
    LEAVES,
    lambda sub: st.one_of(
        st.lists(sub, min_size=1, max_size=4).map(lambda m: nn.Sequential(*m)),
        st.builds(
            lambda a, b: Residual(seq(first=nn.BatchNorm2d(8), a=a), seq(first=nn.BatchNorm2d(8), b=b)), sub, sub
        ),
        st.lists(sub, min_size=1, max_size=4).map(
            lambda ms: Concat(**{f"b{i}": seq(first=nn.BatchNorm2d(8), m=m) for i, m in enumerate(ms)})
        ),
        sub.map(lambda m: Gate(seq(first=nn.AdaptiveAvgPool2d(1), m=m))),
        st.tuples(sub, st.integers(2, 12)).map(lambda pair: nn.Sequential(*[pair[0]] * pair[1])),
    ),
    max_leaves=12,
)


@settings(max_examples=100, deadline=None)
@given(TREES)
def test_nothing_overlaps_in_any_tree(m):
    check_geometry(layout(m))


def check_geometry(block: Block) -> None:
    """Everything is inside; frames nest or are apart; text and wires keep off boxes and off each other."""
    panels = [(p, (*p.points[0], *p.points[1])) for p in block.marks if isinstance(p, Panel)]
    words = [(t, extent(t)) for t in block.marks if isinstance(t, Label)]
    segments = [
        (min(a, c), min(b, d), max(a, c), max(b, d))
        for wire in block.marks
        if isinstance(wire, Wire)
        for (a, b), (c, d) in zip(wire.points, wire.points[1:], strict=False)
    ]
    whole = (0, -5, block.width, block.height)  # the tip of an arrow into the first box lies above it
    assert all(within(area, whole) for area in [*(a for _, a in panels), *(a for _, a in words), *segments])
    for (p, a), (q, b) in combinations(panels, 2):
        nested = (within(a, b) and q.kind not in BOXES) or (within(b, a) and p.kind not in BOXES)
        assert nested or apart(a, b), (p, q)
    for (t, a), (u, b) in combinations(words, 2):
        assert apart(a, b), (t, u)
    for t, a in words:
        assert all(within(a, b) or apart(a, b) for p, b in panels), t
        assert all(apart(a, s) for s in segments), t
    for p, a in panels:
        assert p.kind not in BOXES or all(apart(a, s) for s in segments), p


def extent(text: Label) -> tuple[float, float, float, float]:
    (x, y), half = text.points[0], SIZES[text.size] / 2
    left = x - text.width / 2 if text.align == "center" else x
    return left, y - half, left + text.width, y + half


def within(a, b, eps=1e-6) -> bool:
    return a[0] >= b[0] - eps and a[1] >= b[1] - eps and a[2] <= b[2] + eps and a[3] <= b[3] + eps


def apart(a, b, eps=1e-6) -> bool:
    return a[2] <= b[0] + eps or b[2] <= a[0] + eps or a[3] <= b[1] + eps or b[3] <= a[1] + eps


@pytest.mark.parametrize("names", [FORMS, pytest.param(zoo.list_networks(), marks=pytest.mark.slow)], ids=len)
def test_text_is_not_wider_than_its_estimate(names):
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    pages = [page_named(name) for name in names] + [page_of(with_side_heads())]
    found = {(m.text, m.size): m.width for block in pages for m in block.marks if isinstance(m, Label)}
    assert len(found) > 100
    for (text, size), width in found.items():
        font = FontProperties(family="DejaVu Sans", weight="bold" if size in BOLD else "normal")
        true = TextPath((0, 0), text, size=SIZES[size], prop=font).get_extents().width
        assert true <= width <= 1.5 * true + 2, text


# ---- what a diagram says


@pytest.mark.parametrize(
    ("leaf", "words"),
    [
        (nn.Conv2d(3, 64, 7, 2, 3), "7x7 conv, 64, /2"),
        (nn.Conv2d(8, 64, 1), "1x1 conv, 64"),
        (nn.Conv2d(8, 8, (1, 7), padding=(0, 3)), "1x7 conv, 8"),
        (nn.Conv2d(8, 8, 3), "3x3 conv, 8, pad 0"),
        (nn.Conv2d(8, 8, 3, padding="same"), "3x3 conv, 8"),
        (nn.Conv2d(8, 8, 3, padding="valid"), "3x3 conv, 8, pad valid"),
        (nn.Conv2d(8, 8, 3, (2, 1), padding=1), "3x3 conv, 8, /2x1"),
        (nn.Conv2d(8, 8, 3, padding=2, dilation=2), "3x3 conv, 8, dilation 2"),
        (nn.Conv2d(8, 16, 3, padding=1, groups=4), "3x3 conv, 16, 4 groups"),
        (nn.Conv2d(8, 8, 3, 2, 1, groups=8), "3x3 depthwise, 8, /2"),
        (nn.Linear(8, 1000), "fc, 1000"),
        (nn.MaxPool2d(3, 2), "3x3 max pool, /2"),
        (nn.MaxPool2d(3, 1, 1), "3x3 max pool"),
        (nn.AvgPool2d(2), "2x2 average pool, /2"),
        (nn.AdaptiveAvgPool2d((1, 1)), "global average pool"),
        (nn.AdaptiveAvgPool2d(7), "average pool to 7x7"),
        (ZeroPad(16, 32, 2), "zero-pad, 32, /2"),
        (Shuffle(3), "shuffle, 3 groups"),
        (nn.LocalResponseNorm(5), "LRN"),
        (nn.Dropout(0.5), "dropout 0.5"),
        (nn.Hardswish(), "Hardswish"),
    ],
)
def test_label(leaf, words):
    assert label(leaf) == words.replace("x", TIMES).replace(f"ma{TIMES}", "max")


def test_depth_takes_no_room():
    shallow, deep = (page_named(name) for name in ("resnet20", "resnet1202"))
    assert len(deep.marks) == len(shallow.marks)
    assert deep.height == shallow.height
    assert [t for t in texts(deep) if t.startswith(TIMES)] == [f"{TIMES} {n}" for n in (200, 199, 199)]
    assert [t for t in texts(shallow) if t.startswith(TIMES)] == [f"{TIMES} {n}" for n in (3, 2, 2)]


def test_neighbours_that_differ_where_the_drawing_does_are_not_folded():
    strides = nn.Sequential(conv_bn_act(8, 8, 3, stride=2), conv_bn_act(8, 8, 3), conv_bn_act(8, 8, 3))
    conv = f"3{TIMES}3 conv, 8"
    assert texts(layout(strides)) == [f"{conv}, /2", "BN · ReLU", conv, "BN · ReLU", f"{TIMES} 2"]


def test_dense_layers_fold_though_their_input_widens():
    layers = nn.Sequential(*[dense_layer(64 + 32 * i) for i in range(24)])
    assert texts(layout(layers)).count(f"{TIMES} 24") == 1
    assert texts(layout(layers)).count("concat") == 1


def test_a_box_is_one_layer_and_its_company():
    after = layout(zoo.create("plain20").get_submodule("stage1"))  # (conv, bn, relu), (conv, bn), relu
    assert texts(after) == [f"3{TIMES}3 conv, 16", "BN · ReLU"] * 2 + [f"{TIMES} 3"]
    norm, act, conv = nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 1)
    before = layout(nn.Sequential(norm, act, conv, norm, act, conv))
    assert texts(before) == ["BN · ReLU", f"1{TIMES}1 conv, 8"] * 2
    first, second = (mark.points for mark in before.marks if isinstance(mark, Panel))
    assert first[1][1] - first[0][1] == second[1][1] - second[0][1]


def test_a_layer_that_is_used_twice_is_drawn_twice():
    conv, act = nn.Conv2d(8, 8, 1), nn.ReLU()
    longer = nn.Sequential(nn.Sequential(conv, act), nn.Sequential(conv, act, conv))
    assert texts(layout(longer)) == [f"1{TIMES}1 conv, 8", "ReLU"] * 2 + [f"1{TIMES}1 conv, 8"]


def test_a_part_says_what_it_costs():
    words = texts(page_named("vgg16"))
    assert words[:2] == ["A title", "138 M params · 15.5 G MACs"]
    start = words.index("stage1")
    assert words[start + 1 : start + 4] == [f"112{TIMES}112{TIMES}64", "38.7 K params", "1.94 G MACs"]
    assert f"input 224{TIMES}224{TIMES}3" in words
    assert "output 1000" in words


def test_side_heads_are_drawn_and_are_not_in_the_total():
    net = with_side_heads()
    words = texts(page_of(net))
    assert words.count("auxiliary head") == 2
    assert f"{rounded(cost(net).params)} params" in words[1]
    head = 64 * 128 + 128 + 128 * 18 * 18 * 10 + 10
    assert words.count(f"{rounded(head)} params") == 2


@pytest.mark.parametrize(
    ("number", "text"),
    [(464, "464"), (999, "999"), (1000, "1 K"), (999_499, "999 K"), (999_500, "1 M"), (25.557e6, "25.6 M")],
)
def test_three_figures(number, text):
    assert rounded(number) == text


def test_any_tree_is_drawn():
    words = words_of_svg(draw(SE(4)(64), size=56, in_channels=64))
    assert "Gate" in words
    assert TIMES in words
    assert "sigmoid" in words


def test_a_leaf_of_the_user_goes_by_its_name():
    class Mish2(nn.Module):
        pass

    tree.rule(Mish2)(lambda fold, m, x, path, held: fold.leaf(m, path, held, x, x))
    assert "Mish2" in words_of_svg(draw(nn.Sequential(nn.Conv2d(3, 8, 1), Mish2()), size=8))


def test_a_network_fits_a_page_where_it_can():
    block = page_named("vgg16")
    assert PAGE[0] / block.width > 0.95
    assert PAGE[1] / block.height > 0.95


# ---- files


def test_svg_needs_nothing_from_outside_and_keeps_text_as_text():
    svg = draw(zoo.create("resnet20"), size=32, title="<b> & $x$")
    root = ElementTree.fromstring(svg)
    assert svg.startswith("<svg")
    assert "<b> & $x$" in words_of_svg(svg)
    for element in root.iter():
        assert element.tag.rpartition("}")[2] in {
            "svg",
            "defs",
            "style",
            "g",
            "path",
            "text",
            "clipPath",
            "rect",
            "use",
        }
        assert not any("://" in value for value in element.attrib.values())
    assert "@import" not in svg


def test_the_same_network_gives_the_same_bytes_whatever_the_user_styles():
    import matplotlib

    net = zoo.create("resnet20")
    plain = draw(net, size=32)
    with matplotlib.rc_context({"svg.fonttype": "path", "figure.facecolor": "black", "savefig.bbox": "tight"}):
        assert draw(net, size=32) == plain


def test_files(tmp_path):
    net = zoo.create("resnet20")
    svg = draw(net, tmp_path / "net.svg", size=32)
    png = draw(net, tmp_path / "deep" / "NET.PNG", size=32)
    assert ElementTree.parse(svg).getroot().tag.endswith("svg")
    assert png.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["deep", "net.svg"]


@pytest.mark.parametrize("name", ["net.gif", "net", "svg"])
def test_unknown_suffix(tmp_path, name):
    with pytest.raises(ConfigError, match=rf"error\[L2\].*{name}.*\.svg or \*\.png"):
        draw(zoo.create("resnet20"), tmp_path / name, size=32)
    assert not list(tmp_path.iterdir())


def test_unwritable_place(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match=r"error\[C2\]"):
        draw(zoo.create("resnet20"), tmp_path / "file" / "net.svg", size=32)


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ResourceError, match=r"error\[L5\].*pip install 'convatlas\[train\]'"):
        draw(zoo.create("resnet20"), size=32)


def test_a_wrong_number_of_channels_is_refused():
    with pytest.raises(ValueError, match="takes 3 channels, but its input has 1"):
        draw(zoo.create("resnet20"), size=32, in_channels=1)

"""Pictures of the worlds that chapters are set in, for the book's gallery: ``python -m lib.run.worlds``.

Each function draws one picture and is itself shown beside it on the page, as the example of how the world is used.
The pictures are committed; they are drawn anew by this command, not by a build.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from lib import catalogue, plots
from lib.run.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def digits_picture() -> Figure:
    """The first digits of a training split with their labels."""
    from lib.data import digits

    part = digits(standardise=False).train
    fig, axes = plots.figure(2, 12, height=1.3)
    for ax, image, label in zip(axes.flat, part.x.view(-1, 8, 8), part.y.tolist(), strict=False):
        ax.imshow(image, cmap="gray_r")
        ax.set_title(str(label))
        ax.axis("off")
    return fig


def scenes_picture() -> Figure:
    """Six scenes with the boxes of their objects and their captions."""
    from lib.data import captions
    from lib.data.scenes import scenes

    some = scenes(6, seed=3, pixels=48, objects=(1, 3), textures=3)
    fig, axes = plots.figure(1, 6, height=1.7)
    for ax, image, boxes, sentence in zip(axes, some.images, some.boxes.tolist(), captions(some), strict=True):
        ax.imshow(image.permute(1, 2, 0), extent=(0, 48, 48, 0))
        for left, top, right, bottom in boxes:
            ax.plot([left, right, right, left, left], [top, top, bottom, bottom, top], color="black", linewidth=0.8)
        ax.set_title(str(sentence).replace(" and ", "\nand ").replace(", ", ",\n"), fontsize=6)
        ax.axis("off")
    return fig


def videos_picture() -> Figure:
    """Three clips, a row each."""
    from lib.data import contact_sheet, videos

    clips = videos(3, frames=8, seed=1, pixels=32, objects=(2, 3), speed=(1.5, 3.0))
    fig, ax = plots.figure(height=2.8)
    ax.imshow(contact_sheet(clips.images, columns=8))
    ax.axis("off")
    return fig


def views_picture() -> Figure:
    """Twelve random views of one digit, a row a kind of change."""
    from lib import runtime
    from lib.augment import Views
    from lib.data import digits

    image = digits(standardise=False).train.x[:1].expand(12, -1)
    kinds = {
        "moved": Views(degrees=15, shift=1, shape=(1, 8, 8)),
        "noisy": Views(noise=0.15, shape=(1, 8, 8)),
        "erased": Views(erase=2, shape=(1, 8, 8)),
        "contrast": Views(contrast=(0.3, 1.5), shape=(1, 8, 8)),
    }
    fig, axes = plots.figure(4, 12, height=2.6)
    for row, (name, views) in zip(axes, kinds.items(), strict=True):
        for ax, view in zip(row, views(image, runtime.generator(0)), strict=True):
            ax.imshow(view.view(8, 8), cmap="gray_r", vmin=0, vmax=1)
            ax.set(xticks=[], yticks=[])
        row[0].set_ylabel(name, fontsize=7)
    return fig


def one_box_picture() -> Figure:
    """Pictures with one red shape to find, and its box."""
    from lib.data import contact_sheet
    from lib.data.one_box import one_box_scenes

    images, boxes = one_box_scenes(16, seed=7)
    fig, ax = plots.figure(height=1.9)
    ax.imshow(contact_sheet(images, columns=8))
    for i, (left, top, right, bottom) in enumerate((32 * boxes).tolist()):
        x, y = 33 * (i % 8) - 0.5, 33 * (i // 8) - 0.5
        ax.plot(
            [x + left, x + right, x + right, x + left, x + left],
            [y + top, y + top, y + bottom, y + bottom, y + top],
            color="white",
            linewidth=1,
        )
    ax.axis("off")
    return fig


def curvilinear_picture() -> Figure:
    """Networks of lines with gaps in their contrast, packed cells, and their labels."""
    import torch

    from lib.data.curvilinear import curvilinear

    lines, cells = curvilinear(7, seed=7), curvilinear(7, seed=7, kind="cells")
    rows = [lines.images[:, 0], lines.labels, cells.images[:, 0], cells.labels]
    fig, ax = plots.figure(width=4.2, height=2.4)
    ax.imshow(torch.cat([torch.cat(list(row), 1) for row in rows]), cmap="gray", vmin=-0.3, vmax=1.2)
    ax.axis("off")
    return fig


def motifs_picture() -> Figure:
    """Random sequences with planted motifs; the label says whether both are there."""
    from lib import runtime
    from lib.data import motif_sequences, motif_words

    draw = runtime.generator(0)
    sample = motif_sequences(8, motif_words(2, 8, draw), draw)
    fig, ax = plots.figure(height=1.8)
    for row in range(len(sample)):
        for place, letter in enumerate(sample.text(row)):
            shown = plots.color(int(sample.motif[row, place])) if sample.motif[row, place] > 0 else "#AAAAAA"
            ax.text(place, -row, letter, color=shown, fontsize=7, ha="center")
        ax.text(-2.5, -row, "+" if sample.y[row] else "-", fontsize=8, ha="center")
    ax.set(xlim=(-4, 61), ylim=(-len(sample), 1))
    ax.axis("off")
    return fig


def in_context_picture() -> Figure:
    """Four sine tasks: context pairs, and the query whose answer is asked for."""
    from lib import runtime
    from lib.data import sine_tasks

    tasks = sine_tasks(4, 12, queries=1, generator=runtime.generator(0))
    fig, axes = plots.figure(1, 4, height=1.7, sharey=True)
    for ax, x, y, query, answer in zip(axes, tasks.x, tasks.y, tasks.x_query, tasks.answer, strict=True):
        ax.scatter(x, y, s=9)
        ax.scatter(query, answer, s=40, marker="*", color=plots.BASELINE)
    return fig


def gridworld_picture() -> Figure:
    """The value of every state of the four rooms, with the goal in the upper right."""
    import torch

    from lib.data import FOUR_ROOMS, GridWorld, value_iteration

    world = GridWorld(FOUR_ROOMS, slip=0.1)
    reward = torch.zeros(world.states, 4, dtype=torch.float64)
    reward[world.state(0, 8)] = 1
    fig, ax = plots.figure(width=2.5, height=2.2)
    ax.imshow(world.image(value_iteration(world.transitions, reward, 0.95)[1]))
    ax.grid(False)
    return fig


def domains_picture() -> Figure:
    """Twelve digits in each style; another draw of the style changes every image."""
    from lib import runtime
    from lib.data import DOMAINS, apply_domain, digits

    images = digits(standardise=False).train.x[:12].view(-1, 1, 8, 8)
    fig, axes = plots.figure(len(DOMAINS), 12, height=0.55 * len(DOMAINS))
    for row, name in zip(axes, DOMAINS, strict=True):
        for ax, image in zip(row, apply_domain(images, name, runtime.generator(0)), strict=True):
            ax.imshow(image[0], cmap="gray_r", vmin=0, vmax=1)
            ax.set(xticks=[], yticks=[])
        row[0].set_ylabel(name, fontsize=6, rotation=0, ha="right", va="center")
    return fig


def feedback_picture() -> Figure:
    """Who took what, chances to be seen times relevance, and two graphs."""
    import networkx as nx
    import numpy as np

    from lib.data import block_graph, exposed_feedback, graph_families, implicit_feedback

    taken = implicit_feedback(0, 60, 80, affinity=3.0).mask("train")
    shop = exposed_feedback(0, 60, 80)
    fig, axes = plots.figure(1, 4, height=2.0)
    axes[0].imshow(taken[:, np.argsort(-taken.sum(0))], aspect="auto", cmap="Greys")
    axes[0].set(title="choices", xlabel="item, by popularity", ylabel="user")
    clicks = shop.relevance * shop.propensity
    axes[1].imshow(clicks[:, np.argsort(-shop.propensity[0])], aspect="auto")
    axes[1].set(title="clicks, mean", xlabel="item, by exposure")
    graph = block_graph(0, 80, homophily=0.9)
    family = graph_families(0, 6)
    ring = int((family.y == 2).nonzero()[0])
    inside = family.mask[ring]
    drawn = [
        ("blocks", graph.adjacency, [plots.color(int(y)) for y in graph.y]),
        ("ring of cliques", family.adjacency[ring][inside][:, inside], plots.METHOD),
    ]
    for ax, (title, adjacency, colors) in zip(axes[2:], drawn, strict=True):
        shape = nx.from_numpy_array(adjacency.numpy())
        nx.draw(shape, nx.spring_layout(shape, seed=0), ax, node_size=9, node_color=colors, width=0.3)
        ax.set_title(title)
    return fig


def points_picture() -> Figure:
    """Clouds of points for generative models, one with outliers far away."""
    import torch

    from lib import runtime
    from lib.data import contaminate, gaussian_points, grid_centres, moons, ring_centres

    draw = runtime.generator(0)
    ring = gaussian_points(400, ring_centres(8), 0.08, draw)
    far = gaussian_points(400, torch.tensor([[4.0, 4.0]]), 0.3, draw)
    clouds = {
        "ring": ring,
        "grid": gaussian_points(400, grid_centres(5), 0.08, draw),
        "moons": moons(400, draw),
        "ring with outliers": contaminate(ring.x, far.x, 0.1, draw),
    }
    fig, axes = plots.figure(1, 4, height=1.9)
    for ax, (title, cloud) in zip(axes, clouds.items(), strict=True):
        ax.scatter(*cloud.x.T, s=2)
        ax.set(title=title, aspect="equal")
    return fig


def translation_picture() -> Figure:
    """Label maps, and the pictures they belong to: red or blue is not in the map."""
    import torch

    from lib.data import ambiguous_shapes, contact_sheet

    pairs = ambiguous_shapes(12, seed=1, pixels=24)
    labels = 1 - pairs.x[:, 1:4]
    fig, ax = plots.figure(height=1.3)
    ax.imshow(contact_sheet(torch.cat([labels, pairs.y.clamp(-1, 1) / 2 + 0.5]), columns=12))
    ax.axis("off")
    return fig


def tasks_picture() -> Figure:
    """Training samples of each class in the four tasks of the leaderboard, those with a wrong label above."""
    import torch

    from lib.data.classification_tasks import classification_tasks

    tasks = classification_tasks()
    fig, axes = plots.figure(1, 4, height=1.7, sharey=True)
    clean = tasks["balanced"](0).train
    for ax, (title, data) in zip(axes, tasks.items(), strict=True):
        part = data(0).train
        wrong = part.y != clean.y if title == "noisy labels" else torch.zeros(len(part), dtype=torch.bool)
        right, other = (part.y[rows].bincount(minlength=10).tolist() for rows in (~wrong, wrong))
        ax.bar(range(10), right, color=plots.METHOD)
        ax.bar(range(10), other, bottom=right, color=plots.BASELINE)
        ax.set(xlabel="class")
        ax.set_title(f"{title}: {len(set(part.index.tolist()))} images", fontsize=7)
    return fig


def hidden_styles_picture() -> Figure:
    """The digits as they are, and those of each class that are turned and thickened without a label saying so."""
    from lib.data.hidden_styles import hidden_styles

    world = hidden_styles("digits", seed=0, sizes=(600, 300, 897))
    fig, axes = plots.figure(2, 10, height=1.5)
    for row, style in zip(axes, (0, 1), strict=True):
        for k, ax in enumerate(row):
            image = world.split.train.x[(world.split.train.y == k) & (world.style["train"] == style)][0]
            ax.imshow(image.view(8, 8), cmap="gray_r")
            ax.axis("off")
    return fig


def known_risk_picture() -> Figure:
    """Samples with several labels of chosen rates, and points on a sphere with a known probability of class 1."""
    from lib import runtime
    from lib.data.multi_label import teacher_labels
    from lib.data.spheres import sphere_sample

    fig, (left, right) = plots.figure(1, 2, height=2.4)
    labelled = teacher_labels(0, [0.4, 0.1, 0.02], (600, 1, 1), features=2, noise=0.3).train
    left.scatter(*labelled.x[labelled.y.sum(1) == 0].T, s=4, color="#BBBBBB")
    for k in range(3):
        rate = labelled.y[:, k].double().mean()
        left.scatter(
            *labelled.x[labelled.y[:, k] == 1].T, s=40 - 15 * k, color=plots.color(k), label=f"rate {rate:.2f}"
        )
    left.legend(fontsize=7)
    sphere = sphere_sample(1500, 2, runtime.generator(0))
    right.scatter(*sphere.x[:, :2].T, c=sphere.eta, cmap="coolwarm", s=12)
    right.scatter(*sphere.x[sphere.y > 0, :2].T, s=2, color="black")
    right.set_aspect("equal")
    return fig


WORLDS: dict[str, Callable[[], Figure]] = {
    "digits": digits_picture,
    "scenes": scenes_picture,
    "videos": videos_picture,
    "views": views_picture,
    "one-box": one_box_picture,
    "curvilinear": curvilinear_picture,
    "motifs": motifs_picture,
    "in-context": in_context_picture,
    "gridworld": gridworld_picture,
    "domains": domains_picture,
    "feedback": feedback_picture,
    "points": points_picture,
    "translation": translation_picture,
    "tasks": tasks_picture,
    "hidden-styles": hidden_styles_picture,
    "known-risk": known_risk_picture,
}


def folder() -> Path:
    """Where the pictures are."""
    return catalogue.root() / "book" / "_static" / "worlds"


def main() -> None:
    """Draw all of them."""
    import matplotlib.pyplot as plt

    plots.use_style()
    folder().mkdir(parents=True, exist_ok=True)
    for name, draw in WORLDS.items():
        fig = draw()
        write_atomically(folder() / f"{name}.png", plots.png(fig))
        plt.close(fig)


if __name__ == "__main__":
    main()

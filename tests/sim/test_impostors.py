"""Impostors: sound light, no lensing, the lenses' own brightness and colours, and the shapes they claim to have."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import label
from scipy.stats import ks_2samp

from sim.draw import Drawn, Ingredients, SimConfig, draw_pair
from sim.generate import load_survey
from sim.impostor_kinds import chance, companions, edge_on, interacting
from sim.impostor_kinds.discs import Body, Tilt, _paint_bar
from sim.impostor_kinds.stage import likeness
from sim.impostors import KINDS, Painted, Stage
from sim.population import Population, Sersic
from sim.populations.photometry import Photometry
from sim.scene import Grid
from stages import config
from tests.sim.test_strokes import shape_of

SURVEY = load_survey("des")
PHOTOMETRY = Photometry.of(SURVEY)
GRID = Grid(128, 0.13)


def stage(seed: int, grid: Grid = GRID) -> Stage:
    canvas = np.zeros((len(SURVEY.bands), grid.size, grid.size), np.float32)
    return Stage(np.random.default_rng(seed), canvas, grid, PHOTOMETRY, Population())


def light_without_profiles(kind: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> tuple[Stage, Painted]:
    """What a kind paints with brushes alone: no host, no bulge, no companions."""
    monkeypatch.setattr(Stage, "paint", lambda self, *components: None)
    s = stage(seed, Grid(256, 0.08))
    return s, KINDS[kind](s)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_paints_finite_non_negative_light(kind: str) -> None:
    for seed in range(4):
        s = stage(seed)
        painted = KINDS[kind](s)
        assert np.isfinite(s.canvas).all()
        assert s.canvas.min() >= -0.02 * s.canvas.max()  # `scene.paint` shares unresolved cores with such lobes
        flux = s.canvas.sum(axis=(1, 2)) + sum((p[2] for p in painted.points), np.zeros(len(SURVEY.bands)))
        assert flux.max() > 0
        if painted.has_galaxy:
            assert (flux > 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_paints_the_same_light_and_another_seed_other_light(kind: str) -> None:
    scenes = []
    for seed in (7, 7, 8):
        s = stage(seed)
        points = KINDS[kind](s).points
        scenes.append((s.canvas, [(*p[:2], *p[2]) for p in points]))
    assert np.array_equal(scenes[0][0], scenes[1][0])
    assert scenes[0][1] == scenes[1][1]
    assert not np.array_equal(scenes[0][0], scenes[2][0]) or scenes[0][1] != scenes[2][1]


@pytest.mark.parametrize("kind", KINDS)
def test_no_kind_has_lensing_truth(kind: str) -> None:
    for drawn in _pair(SimConfig(lens_pair_fraction=0.0, impostors={kind: 1.0}), 5):
        row = drawn.row
        assert (row["kind"], row["label"], row["n_images"], row["arc_snr"]) == (kind, 0, 0, 0.0)
        assert np.isnan(row["theta_e_arcsec"])
        assert len(row["image_x_pix"]) == 0
        assert not drawn.arc_mask.any()


def test_the_shipped_configuration_gives_every_kind_a_frequency() -> None:
    shipped = config.load(SimConfig, config.CONFIG_DIR / "sim.yaml")
    assert set(shipped.impostors) == set(KINDS)
    assert min(shipped.impostors.values()) > 0


def _pair(settings: SimConfig, seed: int) -> list[Drawn]:
    return draw_pair(np.random.default_rng(seed), SURVEY, settings, "x", Ingredients())


def test_blends_are_as_bright_and_as_blue_as_the_images_of_lenses(monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = config.load(SimConfig, config.CONFIG_DIR / "sim.yaml")
    only = replace(shipped, lens_pair_fraction=1.0, quasar_fraction=0.0, supernova_fraction=0.0)
    lensed = []
    for seed in range(25):
        lens, twin = (d.cutout.flux for d in _pair(only, seed))
        lensed.append(np.nansum((lens - twin), axis=(1, 2)))
    painted: list[Sersic] = []
    monkeypatch.setattr(Stage, "paint", lambda self, *components: painted.append(components))
    blends = []
    for seed in range(60):
        painted.clear()
        companions.blend(stage(seed))
        blends.append(sum(c.flux for components in painted[1:] for c in components))
    m_lens, m_blend = (PHOTOMETRY.magnitude(np.array(f)) for f in (lensed, blends))
    red = SURVEY.bands.index("r")
    assert ks_2samp(m_lens[:, red], m_blend[:, red]).statistic < 0.4
    colour = [m[:, SURVEY.bands.index("g")] - m[:, red] for m in (m_lens, m_blend)]
    assert ks_2samp(*colour).statistic < 0.45
    assert abs(np.median(m_lens[:, red]) - np.median(m_blend[:, red])) < 0.7


def test_companions_of_a_blend_lie_where_images_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    placed: list[float] = []
    drawn = []

    def remember(s: Stage, kind: str = "galaxy", resolved: bool = False) -> object:
        drawn.append(likeness(s, kind, resolved))
        return drawn[-1]

    monkeypatch.setattr(companions, "likeness", remember)
    monkeypatch.setattr(
        companions, "_paint_blue", lambda s, like, k, xy, same: placed.append(np.hypot(*xy) / like.theta_e)
    )
    for seed in range(40):
        companions.blend(stage(seed))
    assert 0.4 < np.median(placed) < 1.7
    assert len(placed) / len(drawn) > 1.2


def test_tangential_neighbours_are_long_across_the_direction_to_the_galaxy(monkeypatch: pytest.MonkeyPatch) -> None:
    alignment = []
    for seed in range(30):
        s, _ = light_without_profiles("tangential", seed, monkeypatch)
        plane = s.canvas.sum(axis=0)
        parts, number = label(plane > 0.05 * plane.max())
        largest = 1 + int(np.argmax([plane[parts == k + 1].sum() for k in range(number)]))
        one = np.where(parts == largest, plane, 0)
        if (parts[[0, -1]] == largest).any() or (parts[:, [0, -1]] == largest).any():
            continue
        along, across, angle = shape_of(one, s.grid)
        y, x = np.meshgrid(s.grid.axis, s.grid.axis, indexing="ij")
        outwards = np.arctan2((one * y).sum(), (one * x).sum())
        alignment.append(abs(np.cos(angle - outwards)))
        assert along > 1.3 * across
    assert len(alignment) > 15
    assert np.median(alignment) < 0.2
    assert np.mean(np.array(alignment) < 0.5) > 0.9


def test_shells_lie_on_both_sides_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    turned = []
    for seed in range(12):
        s, _ = light_without_profiles("shells", seed, monkeypatch)
        plane = s.canvas.sum(axis=0)
        y, x = np.meshgrid(s.grid.axis, s.grid.axis, indexing="ij")
        r, phi = np.hypot(x, y), np.arctan2(y, x)
        lit = r[plane > 0.02 * plane.max()]
        dipoles = []
        for inner in np.linspace(0.2, 1.0, 40) * lit.max():
            part = (r >= inner) & (r < inner + 0.05 * lit.max())
            total = plane[part].sum()
            dipoles.append((plane[part] * np.exp(1j * phi[part])).sum() / max(total, 1e-30))
        strong = [d for d in dipoles if abs(d) > 0.25]
        turned.append(min((d * strong[-1].conjugate()).real for d in strong) < 0)
    assert np.mean(turned) > 0.8


def test_polar_rings_cross_their_hosts_at_about_a_right_angle(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts: list[Sersic] = []
    angles = []
    for seed in range(12):
        s = stage(seed, Grid(256, 0.08))
        with monkeypatch.context() as patch:
            patch.setattr(Stage, "paint", lambda self, *components: hosts.extend(components))
            interacting.polar_ring(s)
        _, _, angle = shape_of(s.canvas.sum(axis=0), s.grid)
        angles.append(abs(np.sin(angle - hosts[-1].pa)))
    assert np.median(angles) > 0.9


def test_rings_of_collisions_are_off_their_nucleus(monkeypatch: pytest.MonkeyPatch) -> None:
    offsets = []
    for seed in range(12):
        s, _ = light_without_profiles("collisional_ring", seed, monkeypatch)
        plane = s.canvas.sum(axis=0)
        y, x = np.meshgrid(s.grid.axis, s.grid.axis, indexing="ij")
        offsets.append(np.hypot((plane * x).sum(), (plane * y).sum()) / plane.sum())
    assert np.median(offsets) > 0.1


def test_chance_points_are_two_to_four_and_apart() -> None:
    counts = []
    for seed in range(40):
        points = chance.chance_points(stage(seed)).points
        xy = np.array([p[:2] for p in points])
        gaps = [np.hypot(*(xy[i] - xy[j])) for i in range(len(xy)) for j in range(i)]
        assert min(gaps) > 0.1
        counts.append(len(points))
    assert set(counts) == {2, 3, 4}


def test_no_direction_is_preferred() -> None:
    doubled = []
    for seed in range(120):
        s = stage(seed)
        edge_on.edge_on(s)
        _, _, angle = shape_of(s.canvas.sum(axis=0), s.grid)
        doubled.append(np.exp(2j * angle))
    assert abs(np.mean(doubled)) < 0.25  # 3 standard errors of 120 random directions


def test_companions_have_no_preferred_side() -> None:
    directions = []
    for seed in range(150):
        angle = np.random.default_rng(seed)
        points = chance.star_galaxy(replace(stage(seed), rng=angle)).points
        directions.append(np.exp(1j * np.arctan2(points[0][1], points[0][0])))
    assert abs(np.mean(directions)) < 0.25


def test_a_bar_is_foreshortened_with_its_disc() -> None:
    shapes = []
    for q in (1.0, 0.5):
        s = stage(3, Grid(300, 0.05))
        bulge = Sersic(0.0, 0.0, 1.0, 1.0, 1.0, 0.0, np.ones(3))
        _paint_bar(s, Body(np.ones(3), np.ones(3), bulge, 1.0, np.zeros(3)), Tilt(q, 0.4), 1.5, 0.0)
        shapes.append(shape_of(s.canvas[0], s.grid))
    assert shapes[1][0] == pytest.approx(shapes[0][0], rel=0.02)
    assert shapes[1][1] == pytest.approx(0.5 * shapes[0][1], rel=0.03)
    assert np.mod(shapes[0][2], np.pi) == pytest.approx(0.4, abs=0.02)

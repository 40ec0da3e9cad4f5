"""What a fixed surveillance camera sees of a street: backdrop, people, vehicles and smoke.

This module only draws; `street` decides what happens. World coordinates are metres: x to the right, y up, z away from
the camera, which hangs above the origin and looks down. Shapes are drawn with Pillow on a canvas twice as large as
the picture, and reducing the canvas smooths their edges. Nothing here is random but what a given generator decides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import product

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw

SUPERSAMPLING = 2
WALL_DISTANCE = 20.0  # metres: the building closes the scene
ROAD = (10.0, 16.0)  # metres: nearer and farther kerb
EXTENT = 20.0  # metres to either side: more than the camera sees
GLASS = (52, 62, 72)
WHEEL = ((0.33, (24, 24, 26)), (0.17, (120, 122, 124)))  # radius in metres and colour of tyre and rim
CIRCLE = np.stack([np.cos(np.arange(14) * np.pi / 7), np.sin(np.arange(14) * np.pi / 7)], axis=-1)  # (14, 2), radius 1

Array = NDArray[np.float64]
Picture = NDArray[np.uint8]
Colour = tuple[int, int, int]
Face = tuple[Array, Colour]


@lru_cache(maxsize=1024)
def shaded(colour: Colour, factor: float) -> Colour:
    """Return the colour made darker (factor below 1) or brighter (above 1)."""
    red, green, blue = (min(255, max(0, round(channel * factor))) for channel in colour)
    return red, green, blue


def varied(colour: Colour, rng: Generator, light: float = 0.12, hue: int = 5) -> Colour:
    """Return a random colour near the given one: its brightness varies by a share, its channels by `hue` besides."""
    red, green, blue = shaded(colour, rng.uniform(1 - light, 1 + light))
    shift = rng.integers(-hue, hue + 1, 3)
    return shaded((red + int(shift[0]), green + int(shift[1]), blue + int(shift[2])), 1.0)


@dataclass(frozen=True)
class Camera:
    """A pinhole camera that hangs `elevation` metres above the origin, pitched down and turned aside (radians)."""

    width: int
    height: int
    focal: float  # pixels of the picture
    elevation: float
    pitch: float
    turn: float

    @cached_property
    def _axes(self) -> Array:
        """The picture's right, its down and its depth in world axes, `(3, 3)`, one column each."""
        (sine_turn, cosine_turn), (sine, cosine) = ((math.sin(a), math.cos(a)) for a in (self.turn, self.pitch))
        across = (cosine_turn, 0.0, -sine_turn)
        down = (-sine_turn * sine, -cosine, -cosine_turn * sine)
        depth = (sine_turn * cosine, -sine, cosine_turn * cosine)
        return np.array([across, down, depth]).T

    def project(self, points: Array) -> Array:
        """Project world points `(..., 3)`, in metres, to canvas pixels `(..., 2)`."""
        seen = (points - (0.0, self.elevation, 0.0)) @ self._axes
        centre = (SUPERSAMPLING * self.width / 2, SUPERSAMPLING * self.height / 2)
        return seen[..., :2] * (SUPERSAMPLING * self.focal / seen[..., 2:]) + centre

    def pixels_per_metre(self, z: float) -> float:
        """Return how many canvas pixels one metre takes at distance z, at breast height."""
        depth = z * math.cos(self.pitch) + (self.elevation - 1) * math.sin(self.pitch)
        return SUPERSAMPLING * self.focal / depth

    def visible_range(self, z: float) -> tuple[float, float]:
        """Return the x of the leftmost and of the rightmost visible ground point at distance z, in metres."""
        slope = self.width / 2 / self.focal
        return self._ground_edge(z, -slope), self._ground_edge(z, slope)

    def _ground_edge(self, z: float, slope: float) -> float:
        # Solves across = slope * depth, the equation of the picture's edge, for x.
        cosine, sine, forward = math.cos(self.turn), math.sin(self.turn), math.cos(self.pitch)
        constant = z * sine + slope * (z * cosine * forward + self.elevation * math.sin(self.pitch))
        return constant / (cosine - slope * sine * forward)


class Canvas:
    """The supersampled picture in the making, with the few strokes that the scene is made of."""

    def __init__(self, camera: Camera, backdrop: Image.Image | None = None):
        size = (camera.width * SUPERSAMPLING, camera.height * SUPERSAMPLING)
        self.camera = camera
        self.image = backdrop.copy() if backdrop else Image.new("RGB", size)
        self._draw = ImageDraw.Draw(self.image, "RGBA")  # so that a fourth channel blends

    def polygon(self, points: Array, colour: Sequence[int]) -> None:
        """Fill the projection of a polygon given by its corners `(N, 3)`, in metres."""
        self.fill(self.camera.project(points), colour)

    def fill(self, points: Array, colour: Sequence[int]) -> None:
        """Fill a polygon given by canvas points `(N, 2)`."""
        self._draw.polygon(points.ravel().tolist(), fill=tuple(colour))

    def rectangle(self, low: Sequence[float], high: Sequence[float], colour: Sequence[int]) -> None:
        """Fill the axis-parallel rectangle between two opposite corners `(x, y, z)`: on the ground or upright."""
        corners = np.array([low, (high[0], low[1], low[2]), high, (low[0], high[1], high[2])])
        self.polygon(corners, colour)

    def limb(self, joints: Array, thickness: float, colour: Colour) -> None:
        """Draw a bent stroke with round joints through canvas points `(N, 2)`, `thickness` canvas pixels wide."""
        points = [(float(column), float(row)) for column, row in joints]
        self._draw.line(points, fill=colour, width=max(1, round(thickness)))
        for point in points:
            self.disc(point, thickness / 2, colour)

    def disc(self, centre: Array | tuple[float, float], radius: float, colour: Sequence[int]) -> None:
        """Draw a disc around a canvas point, `radius` canvas pixels wide."""
        column, row = centre[0], centre[1]
        self._draw.ellipse((column - radius, row - radius, column + radius, row + radius), fill=tuple(colour))

    def shadow(self, x: float, z: float, radii: tuple[float, float], strength: int = 34) -> None:
        """Darken an ellipse on the ground, with radii along x and z in metres; two layers give it a soft rim."""
        ends = np.array([(x - radii[0], 0, z), (x + radii[0], 0, z), (x, 0, z - radii[1]), (x, 0, z + radii[1])])
        left, right, near, far = self.camera.project(ends)
        middle, half = (left + right) / 2, np.array([right[0] - left[0], near[1] - far[1]]) / 2
        for size in (1.0, 0.7):
            self._draw.ellipse([*(middle - size * half), *(middle + size * half)], fill=(0, 0, 0, strength))

    def picture(self) -> Picture:
        """Return the canvas at the size of the picture, `(height, width, 3)` RGB."""
        return np.asarray(self.image.reduce(SUPERSAMPLING))


@dataclass(frozen=True)
class PersonLook:
    """How a person looks; `stature` is in metres, `build` is the thickness of body and limbs, 1 being average."""

    stature: float
    build: float
    shirt: Colour
    trousers: Colour
    skin: Colour
    hair: Colour


@dataclass(frozen=True)
class Pose:
    """Where a person is and what the body does at one moment; angles in radians, lengths in metres."""

    x: float
    z: float
    heading: float  # 0 looks along x, π/2 away from the camera
    phase: float = 0.0  # of the gait: one cycle is two steps
    stride: float = 0.0  # how far the limbs swing: 0 stands, 1 walks
    haste: float = 0.0  # 0 walks upright, 1 sprints: leaning, knees high, elbows bent
    tumble: float = 0.0  # turn of the whole body, head first
    lift: float = 0.0  # height above the ground


def draw_person(canvas: Canvas, look: PersonLook, pose: Pose) -> None:
    """Draw one person: the shadow, the far limbs, the trunk and the head, the near limbs."""
    canvas.shadow(pose.x, pose.z, (0.42, 0.26))
    joints = canvas.camera.project(_skeleton(look, pose))  # (14, 2): six joints of either side, neck, head
    sides, neck, head = joints[:12].reshape(2, 6, 2), joints[12], joints[13]
    metre = canvas.camera.pixels_per_metre(pose.z)
    unit = metre * look.build
    far, near = (0, 1) if math.cos(pose.heading) > 0 else (1, 0)  # side 0 is the left one
    hips = sides[:, 0].mean(axis=0)

    def limbs(side: Array, brightness: float) -> None:
        canvas.limb(side[:3], 0.15 * unit, shaded(look.trousers, brightness))
        canvas.disc(side[2], 0.075 * unit, shaded((50, 45, 42), brightness))
        canvas.limb(side[3:], 0.10 * unit, shaded(look.shirt, brightness))
        canvas.disc(side[5], 0.055 * unit, shaded(look.skin, brightness))

    limbs(sides[far], 0.72)
    canvas.limb(np.stack([hips, (hips + neck) / 2]), 0.27 * unit, look.trousers)
    canvas.limb(np.stack([sides[0, 3], sides[1, 3]]), 0.15 * unit, look.shirt)
    canvas.limb(np.stack([neck, hips * 0.75 + neck * 0.25]), 0.30 * unit, look.shirt)
    canvas.disc(head, 0.125 * metre, look.hair)
    face = 0.05 * metre * np.array([math.cos(pose.heading), -0.3 * math.sin(pose.heading)])
    if math.sin(pose.heading) < 0.5:  # from behind there is only hair
        canvas.disc(head + face + (0, 0.03 * metre), 0.105 * metre, look.skin)
    limbs(sides[near], 0.92)


def _skeleton(look: PersonLook, pose: Pose) -> Array:
    """Return the joints `(14, 3)` in the world: hip, knee, foot, shoulder, elbow, hand of either side, neck, head."""
    size, hip_height = look.stature, 0.5 * look.stature
    swing = pose.stride * (0.45 + 0.5 * pose.haste)
    lean = 0.03 + 0.25 * pose.haste
    trunk = np.array([math.sin(lean), math.cos(lean)]) * size
    joints = []
    for side, turn in ((1, 0.0), (-1, math.pi)):
        leg = swing * math.sin(pose.phase + turn)
        knee = 0.08 + pose.stride * (0.7 + 1.0 * pose.haste) * max(0.0, math.cos(pose.phase + turn))
        arm = 0.1 - 0.8 * swing * math.sin(pose.phase + turn)
        elbow = 0.25 + 1.25 * pose.haste
        hip = np.array([0.0, hip_height])
        shoulder = hip + 0.31 * trunk
        for start, upper, lower, bend in ((hip, leg, leg - knee, 0.24), (shoulder, arm, arm + elbow, 0.17)):
            middle = start + bend * size * np.array([math.sin(upper), -math.cos(upper)])
            end = middle + bend * size * np.array([math.sin(lower), -math.cos(lower)])
            breadth = side * look.build * (0.08 if start is hip else 0.19)
            joints += [(*start, breadth), (*middle, breadth * 1.1), (*end, breadth)]
    joints += [(*(hip + 0.33 * trunk), 0.0), (*(hip + 0.44 * trunk), 0.0)]
    body = np.array(joints)  # (14, 3): forward, up, to the left
    body[:, 1] -= body[:, 1].min() - 0.04 * size  # the lower foot stands on the ground
    body = _tumbled(body, pose.tumble, hip_height)
    body[:, 1] += pose.lift
    return _placed(body, pose.x, pose.z, pose.heading)


def _tumbled(body: Array, angle: float, pivot: float) -> Array:
    """Turn a body about its hips; a turned body sinks until it lies on the ground."""
    if angle == 0:
        return body
    forward, up = body[:, 0], body[:, 1] - pivot
    turned_up = up * math.cos(angle) - forward * math.sin(angle)
    turned_forward = forward * math.cos(angle) + up * math.sin(angle)
    return np.stack([turned_forward, turned_up - turned_up.min() + 0.1, body[:, 2]], axis=-1)


def _placed(points: Array, x: float, z: float, heading: float) -> Array:
    """Take points `(..., 3)` from a body's own axes (forward, up, left) to the world."""
    forward, up, left = points[..., 0], points[..., 1], points[..., 2]
    cosine, sine = math.cos(heading), math.sin(heading)
    return np.stack([x + forward * cosine - left * sine, up, z + forward * sine + left * cosine], axis=-1)


class Vehicle:
    """A car or, if long and high, a van (metres), of flat faces whose corners turn counter-clockwise from outside."""

    def __init__(self, paint: Colour, length: float = 4.2, breadth: float = 1.75, height: float = 1.45):
        half, belt, flank = length / 2, 0.55 * height, breadth / 2
        hull = np.array([(-half, 0.22), (half, 0.22), (half, belt * 0.85), (half * 0.9, belt), (-half, belt)])
        roof = np.array([(-half * 0.9, belt), (half * 0.5, belt), (half * 0.12, height), (-half * 0.72, height)])
        lamp = np.array([(half, 0.45, -0.8), (half, 0.45, -0.5), (half, 0.62, -0.5), (half, 0.62, -0.8)])
        faces = _prism(hull, breadth, [paint] * 5, paint)
        for side in (1, -1):
            for axle, (radius, colour) in product((-0.6 * half, 0.62 * half), WHEEL):
                wheel = radius * CIRCLE * (-side, 1) + (axle, 0.33)  # the sense of rotation makes it face outwards
                faces.append((np.insert(wheel, 2, side * flank, axis=1), colour))
            shift = np.array((0, 0, 0.65 + 0.65 * side))
            faces += [(lamp + shift, (250, 244, 214)), ((lamp + shift)[::-1] * (-1, 1, 1), (150, 30, 26))]
        faces += _prism(roof, breadth * 0.86, [paint, GLASS, paint, GLASS], GLASS)  # last: it may hide what is below
        self._shadow = (half * 1.12, flank * 1.4)
        self._corners = np.concatenate([corners for corners, _ in faces])  # (N, 3): forward, up, left; face after face
        self._colours = [colour for _, colour in faces]
        sizes = np.array([len(corners) for corners, _ in faces])
        self._stops = np.cumsum(sizes)
        self._starts = self._stops - sizes
        self._triples = self._starts + np.multiply.outer(range(3), sizes) // 3  # (3, faces): three corners of each

    def draw(self, canvas: Canvas, x: float, z: float, heading: float) -> None:
        """Draw the vehicle and its shadow, centred on a ground point; at heading 0 (radians) it drives along x."""
        canvas.shadow(x, z - 0.1, self._shadow, 44)
        flat = canvas.camera.project(_placed(self._corners, x, z, heading))
        first, second, third = flat[self._triples]
        (right, down), (further_right, further_down) = (second - first).T, (third - first).T
        visible = right * further_down < down * further_right  # turns left on the canvas, where rows grow downwards
        for face in np.flatnonzero(visible).tolist():
            canvas.fill(flat[self._starts[face] : self._stops[face]], self._colours[face])


def _prism(outline: Array, breadth: float, edge_colours: Sequence[Colour], flank_colour: Colour) -> list[Face]:
    """Return the faces of an outline `(N, 2)` (forward, up; counter-clockwise) that is stretched to a breadth."""
    right, left = (np.insert(outline, 2, side * breadth / 2, axis=1) for side in (-1, 1))
    faces = [(right, shaded(flank_colour, 0.85)), (left[::-1], shaded(flank_colour, 0.85))]
    for index, colour in enumerate(edge_colours):
        following = (index + 1) % len(outline)
        forward, up = outline[following] - outline[index]
        brightness = 0.7 if abs(up) > abs(forward) else 1.1  # ends lie in shade, tops catch the light
        quad = np.stack([right[index], left[index], left[following], right[following]])
        faces.append((quad, shaded(colour, brightness)))
    return faces


def draw_backdrop(camera: Camera, rng: Generator) -> Image.Image:
    """Draw all that never moves, of random colours and in random places: pavement, road, building, trees."""
    canvas = Canvas(camera)
    pavement = varied(((150, 146, 138), (128, 130, 132), (158, 142, 124))[rng.integers(3)], rng)
    canvas.image.paste(pavement, (0, 0, *canvas.image.size))
    tile = rng.uniform(1.2, 2.4)
    for z in np.arange(3.2, WALL_DISTANCE, tile):
        canvas.rectangle((-EXTENT, 0, z), (EXTENT, 0, z + 0.05), shaded(pavement, 0.88))
    for x in np.arange(-EXTENT, EXTENT, tile):
        canvas.rectangle((x, 0, 3), (x + 0.05, 0, WALL_DISTANCE), shaded(pavement, 0.88))
    _draw_road(canvas, rng, shaded(pavement, 1.15))
    _draw_building(canvas, rng)
    for x in rng.uniform(-10, 10, rng.integers(2, 5)):
        _draw_tree(canvas, x, WALL_DISTANCE - 0.7, rng)
    return _weathered(canvas.image, rng)


def _draw_road(canvas: Canvas, rng: Generator, kerb: Colour) -> None:
    near, far = ROAD
    canvas.rectangle((-EXTENT, 0, near), (EXTENT, 0, far), varied((92, 93, 96), rng))
    for z in (near, far):
        canvas.rectangle((-EXTENT, 0, z - 0.12), (EXTENT, 0, z + 0.12), kerb)
    for x in np.arange(-EXTENT + rng.uniform(0, 4), EXTENT, 4):
        canvas.rectangle((x, 0, 12.2), (x + 2, 0, 12.35), (196, 194, 186))
    if rng.random() < 0.5:
        crossing = rng.uniform(-6, 4)
        for z in np.arange(near + 0.4, far - 0.4, 1.0):
            canvas.rectangle((crossing, 0, z), (crossing + 3, 0, z + 0.5), (188, 187, 182))


def _draw_building(canvas: Canvas, rng: Generator) -> None:
    wall = varied(((152, 112, 92), (168, 158, 140), (122, 128, 136), (142, 134, 118))[rng.integers(4)], rng)
    z = WALL_DISTANCE
    canvas.rectangle((-EXTENT, 0, z), (EXTENT, 12, z), wall)
    canvas.rectangle((-EXTENT, 0, z), (EXTENT, 0.45, z), shaded(wall, 0.7))
    bay, sign = rng.uniform(3.2, 4.6), varied(((104, 52, 48), (48, 70, 98), (58, 84, 62))[rng.integers(3)], rng)
    for x in np.arange(-EXTENT + rng.uniform(0, bay), EXTENT, bay):
        door = rng.random() < 0.3
        right, sill = x + (1.2 if door else bay * 0.66), (0.05 if door else 0.8)
        canvas.rectangle((x - 0.1, sill - 0.1, z), (right + 0.1, 2.6, z), shaded(wall, 1.2))
        canvas.rectangle((x, sill, z), (right, 2.5, z), varied((96, 74, 58) if door else (66, 76, 84), rng))
        canvas.rectangle((x - 0.3, 2.8, z), (x + bay * 0.7, 3.3, z), sign)
        canvas.rectangle((x, 4.0, z), (x + bay * 0.5, 5.6, z), varied((74, 84, 92), rng))
    canvas.rectangle((-EXTENT, 0, z - 1.6), (EXTENT, 0, z), (0, 0, 0, 45))  # the building's own shade


def _draw_tree(canvas: Canvas, x: float, z: float, rng: Generator) -> None:
    canvas.shadow(x, z - 0.2, (1.5, 0.6))
    canvas.rectangle((x - 0.12, 0, z), (x + 0.12, 2.4, z), (84, 68, 54))
    metre = canvas.camera.pixels_per_metre(z)
    green = varied((62, 88, 54), rng)
    for brightness in (0.7, 1.0, 1.25):  # the crown's lit side comes last, higher and smaller
        for _ in range(9):
            spot = (x + rng.normal(0, 0.45), 2.7 + brightness * 0.5 + rng.normal(0, 0.35), z)
            size = rng.uniform(0.35, 0.6) * metre / (0.4 + brightness)
            canvas.disc(canvas.camera.project(np.array(spot)), size, varied(shaded(green, brightness), rng))


def _weathered(image: Image.Image, rng: Generator) -> Image.Image:
    """Add stains and grain: flat surfaces would betray the drawing."""
    stains = Image.fromarray(rng.normal(0, 1, (image.height // 40, image.width // 40)).astype(np.float32))
    grain = rng.normal(0, 3, (image.height, image.width))
    shift = 5 * np.asarray(stains.resize(image.size, Image.Resampling.BICUBIC)) + grain
    return Image.fromarray(np.clip(np.asarray(image) + shift[..., None], 0, 255).astype(np.uint8))


class Smoke:
    """Puffs that are born at one place, rise, whirl, grow and dissolve; all are gone when the progress reaches 1.

    Args:
        camera: whose picture the smoke covers.
        origin: where the puffs are born, world `(x, y, z)` in metres.
        rng: decides on the puffs.
        colour: mean grey or tint of the smoke.
        size: how large the cloud grows, in metres.
        puffs: number of puffs.
        lifetime: mean life of a puff, as progress.
    """

    COARSENESS = 4  # smoke is soft: it is computed on every fourth pixel

    def __init__(
        self, camera: Camera, origin: Array, rng: Generator, *, colour: Colour, size: float, puffs: int, lifetime: float
    ):
        metre = size * camera.pixels_per_metre(origin[2]) / SUPERSAMPLING
        self._camera, self._origin = camera, camera.project(origin) / SUPERSAMPLING
        self._life = lifetime * rng.uniform(0.7, 1.3, puffs)
        self._birth = rng.uniform(0.0, 0.98 - self._life)
        self._birth[: puffs // 6] = 0.0  # the cloud shows at once
        drift = rng.normal((rng.normal(0, 0.2), -0.6), (0.32, 0.22), (puffs, 2))
        self._drift, self._radius = drift * metre, rng.uniform(0.1, 0.24, puffs) * metre
        self._whirl, self._turns = 0.12 * metre, rng.uniform(-4, 4, (puffs, 1))
        lit = 0.7 - 0.35 * drift @ (0.5, 1.0)  # from above and from the left
        self._shade = np.multiply.outer(lit * rng.normal(1.0, 0.25, puffs), colour)

    def cover(self, picture: NDArray[np.float32], progress: float) -> None:
        """Blend the smoke of a moment (progress 0 to 1) into a picture `(height, width, 3)`, in place."""
        alive = np.flatnonzero((self._birth <= progress) & (progress < self._birth + self._life))
        age = ((progress - self._birth[alive]) / self._life[alive])[:, None]  # (P, 1), the others show nothing
        angle = self._turns[alive] * (1 + age)
        centre = self._origin + self._drift[alive] * age**0.7
        centre += self._whirl * age * np.hstack([np.cos(angle), np.sin(angle)])
        radius = self._radius[alive, None] * (0.35 + 0.65 * np.sqrt(age))
        density = np.minimum(1, age * 8 + (self._birth[alive, None] == 0)) * (1 - age)
        rows = np.arange(0, self._camera.height, self.COARSENESS) + self.COARSENESS / 2
        columns = np.arange(0, self._camera.width, self.COARSENESS) + self.COARSENESS / 2
        # A round bell curve is the product of two one-dimensional ones, so that all puffs add up in a matrix product.
        upright = np.exp(-(((rows - centre[:, 1:]) / radius) ** 2)) * density  # (P, H / 4)
        across = np.exp(-(((columns - centre[:, :1]) / radius) ** 2))  # (P, W / 4)
        thickness = upright.T @ across
        colour = np.stack([(upright * shade[:, None]).T @ across for shade in self._shade[alive].T], axis=-1)
        colour /= thickness[..., None] + 1e-6
        layers = np.dstack([colour, 255 * (1 - np.exp(-2.4 * thickness))]).clip(0, 255).astype(np.uint8)
        resized = Image.fromarray(layers).resize((self._camera.width, self._camera.height), Image.Resampling.BILINEAR)
        smooth = np.asarray(resized, dtype=np.float32)
        picture += (smooth[..., :3] - picture) * (smooth[..., 3:] / 255)

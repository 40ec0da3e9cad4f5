"""What happens on the street of made-up footage: people walk, stand and talk, cars drive by, and an incident breaks in.

Everything moves frame by frame, in metres and seconds; `scene` draws it and `footage` films it. Every random choice
comes from the generators that are given, so that the same generators lead to the same story.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from .scene import (
    SUPERSAMPLING,
    Array,
    Camera,
    Canvas,
    Colour,
    PersonLook,
    Pose,
    Smoke,
    Vehicle,
    draw_person,
    varied,
)

Light = NDArray[np.float32]  # (height, width, 3), 0 to 255

NEAR_LANE, FAR_LANE, PARKING_LANE = 11.0, 13.1, 15.1  # metres from the camera
STROLL = (0.7, 2.0)  # metres per second, from idling to being late
SPRINT = (5.0, 7.0)
SHIRTS: tuple[Colour, ...] = (
    (126, 44, 42),
    (44, 66, 112),
    (58, 92, 62),
    (176, 170, 158),
    (48, 48, 54),
    (150, 118, 60),
    (104, 72, 104),
)
TROUSERS: tuple[Colour, ...] = ((46, 58, 86), (44, 44, 48), (112, 100, 80), (88, 90, 94))
SKINS: tuple[Colour, ...] = ((214, 176, 152), (190, 146, 116), (140, 98, 74), (96, 68, 54))
HAIRS: tuple[Colour, ...] = ((42, 34, 30), (84, 62, 42), (148, 122, 84), (120, 118, 116))
DUST, SOOT, FLAME = (168, 154, 132), (104, 101, 98), (340, 190, 70)  # mean colours of puffs
PAINTS: tuple[Colour, ...] = ((150, 40, 38), (206, 206, 202), (58, 62, 68), (46, 74, 118), (120, 126, 130))


def eased(value: float) -> float:
    """Return 0 below 0, 1 above 1, and a smooth way between."""
    value = min(1.0, max(0.0, value))
    return value * value * (3 - 2 * value)


@dataclass
class Person:
    """Someone on the street, who walks to a goal or, without one, stands. Places are ground points `(x, z)`."""

    look: PersonLook
    place: Array
    goal: Array | None
    stroll: float  # metres per second, when nothing happens
    heading: float
    phase: float
    pace: float = field(init=False)
    velocity: Array = field(default_factory=lambda: np.zeros(2))
    flight: float | None = None  # upward speed of someone thrown over, metres per second
    tumble: float = 0.0
    lift: float = 0.0

    def __post_init__(self) -> None:
        self.pace = self.stroll

    @property
    def z(self) -> float:
        """Distance from the camera, metres."""
        return float(self.place[1])

    def step(self, seconds: float, push: Array) -> None:
        """Move on by one frame; `push` is the speed `(2,)` that keeps clear of others."""
        if self.flight is None:
            ahead = np.zeros(2) if self.goal is None else self.goal - self.place
            wish = push + self.pace * ahead / max(1e-6, float(np.hypot(*ahead)))
            self.velocity += (wish - self.velocity) * min(1.0, seconds / 0.14)
        else:
            self.flight = self._fly(self.flight, seconds)
        self.place += self.velocity * seconds
        speed = float(np.hypot(*self.velocity))
        if speed > 0.3 and self.flight is None:
            turn = math.atan2(self.velocity[1], self.velocity[0]) - self.heading
            self.heading += math.remainder(turn, 2 * math.pi) * min(1.0, seconds / 0.12)
        self.phase += seconds * (1.2 + 2 * math.pi * speed / (0.75 + 0.42 * speed))  # a faster gait has longer steps

    def _fly(self, climb: float, seconds: float) -> float:
        """Fly head over heels, then lie and slide to a halt; return the new upward speed."""
        climb -= 9.8 * seconds
        self.lift = max(0.0, self.lift + climb * seconds)
        if self.lift > 0:
            self.tumble += 7.0 * seconds
        else:
            self.tumble += (math.pi / 2 - self.tumble) * min(1.0, seconds / 0.08)
            self.velocity *= math.exp(-seconds / 0.12)
        return climb

    def pose(self) -> Pose:
        """Return what the body does now."""
        speed = 4.5 if self.flight is not None and self.lift > 0 else float(np.hypot(*self.velocity))
        stride, haste = 0.1 + 0.9 * min(1.0, speed), min(1.0, max(0.0, (speed - 2.2) / 2.5))
        x, z = self.place.tolist()
        return Pose(x, z, self.heading, self.phase, stride, haste, self.tumble, self.lift)


@dataclass
class Car:
    """A vehicle on the street: `cruise` is the speed it likes to drive at along its heading, 0 when parked."""

    body: Vehicle
    x: float
    z: float
    heading: float = 0.0
    cruise: float = 0.0
    speed: float = 0.0


class Street:
    """Everyday life before the camera, moved frame by frame.

    Args:
        camera: decides where people may enter and leave unseen.
        rng: decides on everyone and everything.
    """

    def __init__(self, camera: Camera, rng: Generator):
        self.camera, self.rng = camera, rng
        self._population = int(rng.integers(4, 9))
        self._runners = 0  # people beyond the usual number; while there are any, everyone comes running
        self._arrivals = 0.7  # per second and missing person
        self.people = self._group() + [self._walker(within=True) for _ in range(self._population - 3)]
        self.cars = self._traffic()

    def step(self, seconds: float) -> None:
        """Move everyone on by one frame."""
        places = np.array([person.place for person in self.people]).reshape(-1, 2)
        pushes = self._pushes(places)
        for person, push in zip(self.people, pushes, strict=True):
            person.step(seconds, push)
        self.people = [person for person in self.people if self._within(*person.place)]
        missing = max(0, self._population + self._runners - len(self.people))
        if self.rng.random() < missing * self._arrivals * seconds:
            self.people.append(self._walker(within=False))
        for car in self.cars:
            self._drive(car, seconds)

    def draw(self, canvas: Canvas, extras: Iterable[Car] = ()) -> None:
        """Draw people and vehicles, the farthest first."""
        cars = [car for car in (*self.cars, *extras) if self._within(car.x, car.z, 4.0)]
        actors: list[Person | Car] = [*self.people, *cars]
        for actor in sorted(actors, key=lambda actor: -actor.z):
            if isinstance(actor, Car):
                actor.body.draw(canvas, actor.x, actor.z, actor.heading)
            else:
                draw_person(canvas, actor.look, actor.pose())

    def edge(self, margin: float) -> Array:
        """Return a random ground point that lies `margin` metres out of sight, mostly on a pavement."""
        if self.rng.random() < 0.15:
            return np.array([self.rng.uniform(-3, 3), 2.6])
        z = self.rng.uniform(*((6.5, 9.6) if self.rng.random() < 0.65 else (16.8, 18.4)))
        left, right = self.camera.visible_range(z)
        return np.array([left - margin if self.rng.random() < 0.5 else right + margin, z])

    def _way_out(self, person: Person, away_from: Array) -> Array:
        """Return a point out of sight that leads the person away from a ground point."""
        edges = [self.edge(2.0) for _ in range(5)]
        away = person.place - away_from
        return max(edges, key=lambda edge: float(np.dot(edge - person.place, away) / np.hypot(*(edge - person.place))))

    def scare(self, people: Iterable[Person], source: Array | None, runners: int) -> None:
        """Make people sprint away from a ground point, or anywhere, and let more people come running through."""
        for person in people:
            person.pace = self.rng.uniform(*SPRINT)
            person.goal = self.edge(2.0) if source is None else self._way_out(person, source)
        self._runners, self._arrivals = runners, 4.0

    def calm_down(self) -> None:
        """Let everyone walk again."""
        for person in self.people:
            person.pace = person.stroll
        self._runners, self._arrivals = 0, 0.7

    def _within(self, x: float, z: float, margin: float = 1.2) -> bool:
        left, right = self.camera.visible_range(z)
        return z > 2.5 and left - margin < x < right + margin

    def person(self, place: Array, goal: Array | None, pace: float) -> Person:
        """Return someone of random looks; without a goal, turned anywhere."""
        rng = self.rng
        colours = (varied(choice[rng.integers(len(choice))], rng) for choice in (SHIRTS, TROUSERS, SKINS, HAIRS))
        look = PersonLook(rng.uniform(1.58, 1.9), rng.uniform(0.88, 1.2), *colours)
        heading = rng.uniform(-np.pi, np.pi) if goal is None else math.atan2(*(goal - place)[::-1])
        return Person(look, place, goal, pace, heading, rng.uniform(0, 2 * np.pi))

    def _walker(self, within: bool) -> Person:
        """Return someone on the way from one edge to another, just entering or already `within` sight."""
        place, goal = self.edge(1.0), self.edge(2.0)
        while np.hypot(*(goal - place)) < 5:  # nobody turns round on the threshold
            goal = self.edge(2.0)
        if within:
            place = place + self.rng.uniform(0.15, 0.8) * (goal - place)
        person = self.person(place, goal, self.rng.uniform(*STROLL))
        person.pace = self.rng.uniform(*SPRINT) if self._runners else person.stroll
        person.velocity = person.pace * (goal - place) / np.hypot(*(goal - place))
        return person

    def _group(self) -> list[Person]:
        """Return two or three people who stand together and face each other, always in sight."""
        z = self.rng.uniform(7.0, 9.2)
        left, right = self.camera.visible_range(z)
        centre = np.array([self.rng.uniform(0.75 * left + 0.25 * right, 0.25 * left + 0.75 * right), z])
        people = []
        count, turn = int(self.rng.integers(2, 4)), self.rng.uniform(0, 2 * np.pi)
        for angle in turn + 2 * np.pi * np.arange(count) / count:
            person = self.person(centre + 0.55 * np.array([np.cos(angle), np.sin(angle)]), None, 1.3)
            person.heading = angle + np.pi
            people.append(person)
        return people

    def _traffic(self) -> list[Car]:
        cars = []
        for x in (self.rng.uniform(-8, -2.5), self.rng.uniform(2.5, 8)):
            if self.rng.random() < 0.6:
                cars.append(Car(self._vehicle(), x, PARKING_LANE, np.pi * self.rng.integers(2)))
        if self.rng.random() < 0.5:  # a car that drives by, unhurried
            forth, cruise = self.rng.random() < 0.5, self.rng.uniform(2.5, 4.5)
            entry = self.camera.visible_range(FAR_LANE)[0 if forth else 1]
            start = entry + (-1 if forth else 1) * (4 + cruise * self.rng.uniform(-1, 4))
            cars.append(Car(self._vehicle(), start, FAR_LANE, 0.0 if forth else np.pi, cruise, cruise))
        return cars

    def _vehicle(self) -> Vehicle:
        paint = varied(PAINTS[self.rng.integers(len(PAINTS))], self.rng)
        return Vehicle(paint, 4.8, 1.9, 2.1) if self.rng.random() < 0.25 else Vehicle(paint)

    def _drive(self, car: Car, seconds: float) -> None:
        """Drive on, but brake for people ahead."""
        forth = math.cos(car.heading)
        ahead = [forth * (person.place[0] - car.x) for person in self.people if abs(person.place[1] - car.z) < 1.6]
        wish = 0.0 if any(0 < distance < 5 for distance in ahead) else car.cruise
        car.speed += (wish - car.speed) * min(1.0, seconds / 0.3)
        car.x += forth * car.speed * seconds

    def _pushes(self, places: Array) -> Array:
        """Return the sideways speed `(N, 2)` with which people keep clear of each other and of vehicles."""
        bumpers = [(car.x + offset, car.z) for car in self.cars for offset in (-1.2, 0.0, 1.2)]
        centres = np.concatenate([places, np.array(bumpers).reshape(-1, 2)])
        reach = np.array([0.75] * len(places) + [1.9] * len(bumpers))
        apart = places[:, None] - centres  # (N, N + bumpers, 2)
        distance = np.hypot(apart[..., 0], apart[..., 1])
        strength = np.where(distance > 0, np.clip(reach - distance, 0, 0.7) * 2.2, 0)
        return (apart / np.maximum(distance, 1e-6)[..., None] * strength[..., None]).sum(axis=1)


class Incident:
    """Something that breaks into the everyday life of a street and ends again; progress runs from 0 to 1.

    Args:
        street: the street that it happens on, as it is when it begins.
        rng: decides on how it happens.
    """

    CALM = 0.86  # progress at which people slow down, so as to walk when it is over

    def __init__(self, street: Street, rng: Generator):
        self.street, self.rng = street, rng
        self.cars: list[Car] = []

    def step(self, progress: float) -> None:
        """Make happen what happens at this moment."""
        if progress > self.CALM:
            self.street.calm_down()

    def cover(self, light: Light, progress: float, seconds: float) -> None:
        """Add glare or smoke to the picture in place, `seconds` after the beginning."""


class Running(Incident):
    """A panic: everyone sprints, and more people come running from all sides."""

    def __init__(self, street: Street, rng: Generator):
        super().__init__(street, rng)
        street.scare(street.people, None, runners=8)


class Collision(Incident):
    """A car comes in fast, hits people, throws them over in a cloud of dust, skids, backs away and is gone."""

    IMPACT, HALT, DEPARTURE, RISE = 0.18, 0.38, 0.6, 0.72  # progress at which it hits, halts, leaves, and people rise
    NOSE = 1.7  # metres from the middle of the car to where it hits

    def __init__(self, street: Street, rng: Generator):
        super().__init__(street, rng)
        left, right = street.camera.visible_range(NEAR_LANE)
        middle = np.array([(left + right) / 2, NEAR_LANE - 1.5])
        target = min(street.people, key=lambda person: float(np.hypot(*(person.place - middle))))
        target.goal = None
        self._forth = 1 if target.place[0] > middle[0] else -1  # from the farther side, to be seen coming
        entry = left if self._forth > 0 else right
        self._start, self._hit = np.array([entry - 1.9 * self._forth, NEAR_LANE]), target.place.copy()
        self._hit[0] -= self.NOSE * self._forth
        self._skid = rng.uniform(0.7, 1.1) * rng.choice([-1, 1])
        self._car = Car(Vehicle(varied(PAINTS[rng.integers(len(PAINTS))], rng)), *self._start)
        self.cars = [self._car]
        self._victims: list[Person] = []
        self._dust: Smoke | None = None

    def step(self, progress: float) -> None:
        """Drive, hit, and let everyone rise again."""
        super().step(progress)
        self._steer(progress)
        if self._dust is None and progress >= self.IMPACT:
            self._crash()
        for person in self._victims:
            if progress > self.RISE and person.flight is not None:
                person.lift, person.tumble = 0.0, math.pi / 2 * (1 - eased((progress - self.RISE) / 0.2))
                if progress > self.RISE + 0.2:
                    person.flight, person.goal = None, self.street.edge(2.0)

    def cover(self, light: Light, progress: float, seconds: float) -> None:
        """Blow dust over the place of the crash."""
        if self._dust is not None:
            self._dust.cover(light, (progress - self.IMPACT) / (1 - self.IMPACT))

    def _steer(self, progress: float) -> None:
        approach = min(1.0, progress / self.IMPACT)
        braking = min(1.0, max(0.0, (progress - self.IMPACT) / (self.HALT - self.IMPACT)))
        departure = max(0.0, (progress - self.DEPARTURE) / (0.97 - self.DEPARTURE))
        slide = braking * (2 - braking)
        place = self._start + approach * (self._hit - self._start)
        place[0] += 2.0 * slide * self._forth
        place += departure**2 * (self._start - (4.0 * self._forth, 0) - place)
        straight = math.atan2(self._hit[1] - self._start[1], abs(self._hit[0] - self._start[0]))
        turn = (straight + self._skid * slide) * (1 - eased(2 * departure))
        self._car.x, self._car.z = place.tolist()
        self._car.heading = turn if self._forth > 0 else math.pi - turn

    def _crash(self) -> None:
        rng, front = self.rng, self._hit + np.array([self.NOSE * self._forth, 0])
        for person in self.street.people:
            if np.hypot(*(person.place - front)) < 2.0:
                person.flight, person.lift, person.goal = rng.uniform(3.5, 4.6), 0.1, None
                person.velocity = np.array([self._forth * rng.uniform(2.5, 4.5), rng.uniform(-1.0, 1.5)])
                self._victims.append(person)
        self.street.scare([person for person in self.street.people if person.flight is None], front, runners=4)
        origin = np.array([front[0], 0.4, front[1]])
        self._dust = Smoke(self.street.camera, origin, rng, colour=DUST, size=4.0, puffs=110, lifetime=0.35)


class FlashAndSmoke(Incident):
    """An explosion: a glaring flash, fire, smoke that billows and dissolves, people who run away from it."""

    def __init__(self, street: Street, rng: Generator):
        super().__init__(street, rng)
        camera, z = street.camera, rng.uniform(8.5, 14.0)
        left, right = camera.visible_range(z)
        x = rng.uniform(0.65 * left + 0.35 * right, 0.35 * left + 0.65 * right)
        origin = np.array([x, 0.4, z])
        self._smoke = Smoke(camera, origin, rng, colour=SOOT, size=6.5, puffs=170, lifetime=0.36)
        self._fire = Smoke(camera, origin, rng, colour=FLAME, size=2.2, puffs=120, lifetime=0.12)
        column, row = camera.project(origin) / SUPERSAMPLING
        rows, columns = np.mgrid[: camera.height, : camera.width]
        near = np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (0.2 * camera.width) ** 2)
        self._glare = (120 + 420 * near)[..., None] * np.array([1.0, 0.95, 0.8])
        street.scare(street.people, np.array([x, z]), runners=2)

    def cover(self, light: Light, progress: float, seconds: float) -> None:
        """Lay the smoke over the picture, and fire and flash over both."""
        self._smoke.cover(light, progress)
        self._fire.cover(light, progress)
        strength = math.exp(-seconds / 0.12)
        if strength > 0.01:
            light += (strength * self._glare).astype(np.float32)

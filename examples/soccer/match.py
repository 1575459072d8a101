"""Simulated soccer match with a pitch, two teams and a ball.

Players and ball move on smooth paths.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

# Set before the import of MuJoCo, which reads it once. OSMesa needs neither a screen nor a GPU.
os.environ.setdefault("MUJOCO_GL", "osmesa")

import mujoco
import numpy as np
from dataset import TEAM_SIZE
from dm_control import composer
from dm_control.locomotion import soccer
from numpy.typing import NDArray

MIN_PITCH_HALF_M = (20.0, 15.0)
MAX_PITCH_HALF_M = (28.0, 21.0)
# dm_control's default margin outside the field is 32 / 6 metres; paths stay inside the field.
FIELD_SHARE = 0.72
POSSESSION_S = 8.0
PASS_S = 2.0
DRIBBLE_M = 0.95


@dataclass(frozen=True)
class Path:
    """Smooth path: the sum of two sines per axis.

    Attributes:
        amplitude_m: (2, 2) float64, wave by axis.
        omega: (2, 2) float64, radians per second.
        phase: (2, 2) float64, radians.
    """

    amplitude_m: NDArray[np.float64]
    omega: NDArray[np.float64]
    phase: NDArray[np.float64]

    @classmethod
    def random(cls, rng: np.random.Generator, half_m: NDArray[np.float64]) -> Path:
        """Draw a path inside a rectangle.

        Args:
            rng: source of randomness.
            half_m: (2,) float64, half extents of the rectangle in metres.
        """
        share = rng.uniform(0.35, 0.65, size=(1, 2))
        amplitude_m = np.concatenate([share, 1.0 - share]) * half_m
        omega = rng.uniform(0.05, 0.16, size=(2, 2))
        return cls(amplitude_m, omega, rng.uniform(0.0, 2.0 * np.pi, size=(2, 2)))

    def position(self, time_s: float) -> NDArray[np.float64]:
        """Return the (2,) float64 position in metres."""
        return np.asarray((self.amplitude_m * np.sin(self.omega * time_s + self.phase)).sum(axis=0))

    def velocity(self, time_s: float) -> NDArray[np.float64]:
        """Return the (2,) float64 velocity in metres per second."""
        wave = self.amplitude_m * self.omega * np.cos(self.omega * time_s + self.phase)
        return np.asarray(wave.sum(axis=0))

    def heading(self, time_s: float) -> float:
        """Return the direction of travel in radians from +x, counter-clockwise."""
        vx, vy = self.velocity(time_s)
        return float(np.arctan2(vy, vx))


def _players() -> list[soccer.Player]:
    teams = ((soccer.Team.HOME, "home", soccer.RGBA_BLUE), (soccer.Team.AWAY, "away", soccer.RGBA_RED))
    return [
        soccer.Player(team, soccer.BoxHead(name=f"{name}{i}", walker_id=i, marker_rgba=rgba))
        for team, name, rgba in teams
        for i in range(TEAM_SIZE)
    ]


def _environment(seed: int) -> composer.Environment:
    arena = soccer.RandomizedPitch(MIN_PITCH_HALF_M, MAX_PITCH_HALF_M)
    task = soccer.Task(players=_players(), arena=arena, ball=soccer.SoccerBall())
    visual = task.root_entity.mjcf_model.visual
    visual.quality.offsamples = 0  # frames are supersampled instead, so that labels and colours stay aligned
    offscreen = getattr(visual, "global")
    offscreen.offwidth, offscreen.offheight = 1280, 720
    return composer.Environment(task, random_state=seed)


class Match:
    """Pitch of random size, with players and a ball on random paths.

    Players are placed, not simulated. A pose depends on the time alone, so frames can be rendered in any order.

    Args:
        seed: seed of the pitch's size and of all paths.
    """

    def __init__(self, seed: int) -> None:
        self._env = _environment(seed)
        self._env.reset()
        self._task = self._env.task
        rng = np.random.default_rng(seed)
        half_m = np.asarray(self._task.arena.size) * FIELD_SHARE
        self._paths = [Path.random(rng, half_m) for _ in self._task.players]
        self._loose_ball = Path.random(rng, half_m)
        self._owners = rng.integers(-1, len(self._paths), size=512)
        self.physics = self._env.physics
        self._base_light = self.physics.model.light_diffuse.copy()

    def close(self) -> None:
        """Free the simulator."""
        self._env.close()

    @property
    def half_m(self) -> NDArray[np.float64]:
        """Half length and half width of the arena, (2,) float64 metres."""
        return np.asarray(self._task.arena.size, dtype=np.float64)

    @property
    def player_positions(self) -> NDArray[np.float64]:
        """Current positions of the players, (2 * TEAM_SIZE, 2) float64 metres.

        The home team comes first.
        """
        return self._player_xy

    @property
    def ball_position(self) -> NDArray[np.float64]:
        """Current position of the ball, (2,) float64 metres."""
        return self._ball_xy

    def light(self, ambient: float, diffuse: float) -> None:
        """Set the brightness of the scene.

        Args:
            ambient: light from all directions, in [0, 1].
            diffuse: factor on the four corner lights. 1 is the simulator's default.
        """
        self.physics.model.vis.headlight.ambient[:] = ambient
        self.physics.model.light_diffuse[:] = self._base_light * diffuse

    def place(self, time_s: float) -> None:
        """Move players and ball to their positions at `time_s`."""
        self._player_xy = np.stack([path.position(time_s) for path in self._paths])
        for player, path, (x, y) in zip(self._task.players, self._paths, self._player_xy, strict=True):
            player.walker.set_pose(self.physics, (x, y, 0.0), _steering(path.heading(time_s)))
        self._ball_xy = self.ball_at(time_s)
        self._roll_ball(angle=3.0 * time_s)
        self.physics.forward()

    def _roll_ball(self, angle: float) -> None:
        spin = np.array([np.cos(angle / 2), 0.6 * np.sin(angle / 2), 0.8 * np.sin(angle / 2), 0.0])
        radius_m = float(self._task.ball.geom.size[0])
        # The body of the ball turns about its first point of contact, one radius below the centre.
        centre = np.zeros(3)
        mujoco.mju_rotVecQuat(centre, np.array([0.0, 0.0, radius_m]), spin)
        self._task.ball.set_pose(self.physics, np.array([*self._ball_xy, radius_m]) - centre, spin)

    def ball_at(self, time_s: float) -> NDArray[np.float64]:
        """Return the position of the ball, (2,) float64 metres.

        It is at the feet of a player, or between two players during a pass.
        """
        possession, since_s = divmod(time_s, POSSESSION_S)
        now = self._feet(int(self._owners[int(possession) % 512]), time_s)
        then = self._feet(int(self._owners[(int(possession) + 1) % 512]), time_s)
        share = np.clip((since_s - (POSSESSION_S - PASS_S)) / PASS_S, 0.0, 1.0)
        return np.asarray(now + (then - now) * share)

    def _feet(self, owner: int, time_s: float) -> NDArray[np.float64]:
        if owner < 0:
            return self._loose_ball.position(time_s)
        path = self._paths[owner]
        ahead = np.array([np.cos(path.heading(time_s)), np.sin(path.heading(time_s))])
        return np.asarray(path.position(time_s) + DRIBBLE_M * ahead)


def _steering(heading: float) -> tuple[float, float, float, float]:
    # The walker's forward axis is -y at angle zero, and its steering joint turns about -z.
    angle = -(heading + np.pi / 2)
    return float(np.cos(angle / 2)), 0.0, 0.0, float(np.sin(angle / 2))

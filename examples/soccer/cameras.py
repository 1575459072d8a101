"""Camera poses: four families of random views, and one flight."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from match import Match
from numpy.typing import NDArray

MIN_CLEARANCE_M = 1.3


@dataclass(frozen=True)
class Pose:
    """Position and direction of a camera.

    Attributes:
        eye_m: (3,) float64, position in metres.
        target_m: (3,) float64, point in the centre of the image, in metres.
        fovy_deg: vertical field of view in degrees.
    """

    eye_m: NDArray[np.float64]
    target_m: NDArray[np.float64]
    fovy_deg: float

    def orbit(self) -> tuple[NDArray[np.float64], float, float, float]:
        """Return the pose as arguments of MuJoCo's free camera.

        Returns:
            Look-at point and distance in metres, azimuth and elevation in degrees.
        """
        forward = self.target_m - self.eye_m
        distance = float(np.linalg.norm(forward))
        azimuth = np.degrees(np.arctan2(forward[1], forward[0]))
        elevation = np.degrees(np.arcsin(forward[2] / distance))
        return self.target_m, distance, float(azimuth), float(elevation)


def _target(match: Match, rng: np.random.Generator) -> NDArray[np.float64]:
    goal = np.array([rng.choice([-1.0, 1.0]) * (match.half_m[0] - 3.0), 0.0])
    spots = (match.ball_position, rng.choice(match.player_positions), goal, rng.uniform(-0.6, 0.6, 2) * match.half_m)
    spot = spots[rng.choice(4, p=[0.45, 0.3, 0.15, 0.1])]
    jitter = rng.normal(0.0, 0.5, size=2)
    return np.array([*(spot + jitter), rng.uniform(0.2, 1.0)])


def _around(
    rng: np.random.Generator, target: NDArray[np.float64], height_m: float, distance_m: float, fovy_deg: float
) -> Pose:
    azimuth = rng.uniform(0.0, 2.0 * np.pi)
    ground_m = np.sqrt(max(distance_m**2 - height_m**2, 1.0))
    offset = np.array([ground_m * np.cos(azimuth), ground_m * np.sin(azimuth), height_m - target[2]])
    return Pose(target + offset, target, fovy_deg)


def _robot(match: Match, rng: np.random.Generator) -> Pose:
    return _around(rng, _target(match, rng), rng.uniform(0.6, 1.6), rng.uniform(3.0, 14.0), rng.uniform(40, 70))


def _near(match: Match, rng: np.random.Generator) -> Pose:
    target = np.array([*(match.ball_position + rng.normal(0.0, 0.4, 2)), 0.4])
    distance_m = rng.uniform(2.2, 7.0)
    return _around(rng, target, distance_m * rng.uniform(0.2, 0.7), distance_m, rng.uniform(45, 70))


def _stand(match: Match, rng: np.random.Generator) -> Pose:
    return _around(rng, _target(match, rng), rng.uniform(3.0, 9.0), rng.uniform(10.0, 24.0), rng.uniform(30, 55))


def _chase(match: Match, rng: np.random.Generator) -> Pose:
    player = rng.choice(match.player_positions)
    towards = np.append(match.ball_position - player + rng.normal(0.0, 1.0, 2), 0.0)
    towards /= np.linalg.norm(towards)
    side = np.array([-towards[1], towards[0], 0.0]) * rng.choice([-1.0, 1.0])
    head = np.array([*player, 1.0])
    eye = head - towards * rng.uniform(2.0, 3.5) + side * 0.8 + np.array([0.0, 0.0, rng.uniform(0.4, 1.4)])
    return Pose(eye, head + towards * rng.uniform(3.0, 6.0) - [0.0, 0.0, 0.6], float(rng.uniform(50, 65)))


_FAMILIES = {"robot": _robot, "near": _near, "stand": _stand, "chase": _chase}


def random_pose(match: Match, family: str, rng: np.random.Generator) -> Pose:
    """Draw a pose for which `is_free` holds.

    Args:
        match: its players are in place.
        family: one of "robot", "near", "stand", "chase".
        rng: source of randomness.

    Returns:
        The first free one of up to 64 draws, or else the last.
    """
    for _ in range(64):
        pose = _FAMILIES[family](match, rng)
        if is_free(pose, match):
            break
    return pose


def is_free(pose: Pose, match: Match) -> bool:
    """Return whether a camera stands inside the arena and free.

    It is free at a distance from all players, or above their heads.
    """
    inside = bool(np.all(np.abs(pose.eye_m[:2]) < match.half_m - 0.5))
    clearance = np.linalg.norm(match.player_positions - pose.eye_m[:2], axis=1).min()
    return inside and (clearance > MIN_CLEARANCE_M or pose.eye_m[2] > 2.5)


def flight_pose(ball_xy: NDArray[np.float64], share: float) -> Pose:
    """Return a pose of a smooth flight around the ball.

    The flight starts low and near, and ends high and far.

    Args:
        ball_xy: (2,) float64, a smoothed position of the ball in metres.
        share: completed share of the flight, in [0, 1].
    """
    ease = share * share * (3.0 - 2.0 * share)
    azimuth = np.radians(200.0 + 95.0 * ease)
    radius_m, height_m = 5.5 + 7.0 * ease, 1.3 + 3.7 * ease
    eye = np.array([ball_xy[0] + radius_m * np.cos(azimuth), ball_xy[1] + radius_m * np.sin(azimuth), height_m])
    return Pose(eye, np.array([*ball_xy, 0.6]), 52.0)

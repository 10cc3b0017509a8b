"""The bodies of LunarLander: polygons with their masses, computed in float32 in the order of Box2D's operations.

Catto, Box2D 2.3 (https://box2d.org), whose results the rigid bodies here follow to the last bit.
"""

import numpy as np

F = np.float32
SCALE = 30.0
LANDER, LEFT_LEG, RIGHT_LEG = range(3)
BODIES = 3
MOST = 6
"""Largest number of vertices of a polygon."""


def _lander() -> np.ndarray:
    """Vertices of the lander, counterclockwise from the lower right corner."""
    return np.array([(17, -10), (17, 0), (14, 17), (-14, 17), (-17, 0), (-17, -10)], np.float64) / SCALE


def _leg() -> np.ndarray:
    """Vertices of a leg, counterclockwise from the lower left corner."""
    return np.array([(-2, -8), (2, -8), (2, 8), (-2, 8)], np.float64) / SCALE


def _mass(vertices: np.ndarray, density: float) -> tuple[np.float32, np.float32, np.ndarray]:
    """Return (mass, moment of inertia around the centre of mass, centre of mass) of a polygon as a fan of triangles."""
    third = F(1) / F(3)
    origin = np.zeros(2, F)
    for vertex in vertices:
        origin = origin + vertex
    origin = origin * (F(1) / F(len(vertices)))
    area = F(0)
    inertia = F(0)
    centre = np.zeros(2, F)
    for first, second in zip(vertices, np.roll(vertices, -1, 0), strict=True):
        a = first - origin
        b = second - origin
        cross = a[0] * b[1] - a[1] * b[0]
        triangle = F(0.5) * cross
        area = area + triangle
        centre = centre + (triangle * third) * (a + b)
        squares = [a[i] * a[i] + b[i] * a[i] + b[i] * b[i] for i in range(2)]
        inertia = inertia + (F(0.25) * third * cross) * (squares[0] + squares[1])
    mass = F(density) * area
    centre = centre * (F(1) / area)
    place = centre + origin
    around_origin = F(density) * inertia + mass * (place @ place - centre @ centre)
    local = (mass * place) * (F(1) / mass)
    return mass, around_origin - mass * (local @ local), local


def _centroid(vertices: np.ndarray) -> np.ndarray:
    """Return the centroid of a polygon as a fan of triangles around the origin, which is not rounded as the centre of mass is."""
    third = F(1) / F(3)
    area = F(0)
    centre = np.zeros(2, F)
    for a, b in zip(vertices, np.roll(vertices, -1, 0), strict=True):
        triangle = F(0.5) * (a[0] * b[1] - a[1] * b[0])
        area = area + triangle
        centre = centre + (triangle * third) * (a + b)
    return centre * (F(1) / area)


def _normals(vertices: np.ndarray) -> np.ndarray:
    """Return the outward unit normals of the sides; side i begins at vertex i."""
    found = np.zeros_like(vertices)
    for i, (first, second) in enumerate(zip(vertices, np.roll(vertices, -1, 0), strict=True)):
        side = second - first
        normal = np.array([side[1], -side[0]], F)
        found[i] = normal * (F(1) / np.sqrt(normal[0] * normal[0] + normal[1] * normal[1]))
    return found


CORNERS = (6, 4, 4)
VERTICES = np.zeros((BODIES, MOST, 2), F)
NORMALS = np.zeros((BODIES, MOST, 2), F)
CENTROIDS = np.zeros((BODIES, 2), F)
CENTRES = np.zeros((BODIES, 2), F)
INVERSE_MASS = np.zeros(BODIES, F)
INVERSE_INERTIA = np.zeros(BODIES, F)
for _body, (_shape, _density) in enumerate([(_lander(), 5.0), (_leg(), 1.0), (_leg(), 1.0)]):
    _vertices = _shape.astype(F)
    _count = len(_vertices)
    VERTICES[_body, :_count] = _vertices
    NORMALS[_body, :_count] = _normals(_vertices)
    _measure, _inertia, CENTRES[_body] = _mass(_vertices, _density)
    CENTROIDS[_body] = _centroid(_vertices) if _body == LANDER else 0.0
    INVERSE_MASS[_body] = F(1) / _measure
    INVERSE_INERTIA[_body] = F(1) / _inertia

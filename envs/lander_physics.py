"""Rigid bodies in the plane: a lander with two legs on revolute joints above fixed ground, in float32.

The methods are those of Box2D 2.3 (Catto, https://box2d.org): semi-implicit Euler, sequential impulses with warm starting for joints and
contacts (Catto 2006, "Fast and simple physics using sequential impulses"), position correction after each step, and a search for the time
of impact, so that nothing passes through the ground. Every sum is taken in Box2D's order, so a step is equal to a step of Box2D to the
last bit. The number of iterations is Box2D's as well; they stop early only when the iterations left cannot change the result.

The functions work on the state row of an environment, float64, whose cells hold numbers that are exact in float32. Names of the form
``ax, ay`` are the components of a vector. ``sin, cos, px, py`` is the pose of a body: its rotation and the position of its origin.
"""

import math

import numpy as np

from rl_lab.envs.lander_shapes import (
    BODIES,
    CENTRES,
    CENTROIDS,
    CORNERS,
    INVERSE_INERTIA,
    INVERSE_MASS,
    LANDER,
    NORMALS,
    SCALE,
    VERTICES,
    F,
)
from rl_lab.envs.world import kernel

ZERO = F(0)
ONE = F(1)
TWO = F(2)
HALF = F(0.5)
STEP = F(1.0 / 50)  # s
VELOCITY_ITERATIONS = 180
POSITION_ITERATIONS = 60
MOST_TURNS = 16  # longest turn in which the numbers of an iteration return

# --- tolerances, in metres and radians ---------------------------------------------------------------------------------

SLOP = F(0.005)
ANGULAR_SLOP = F(2.0 / 180.0) * F(math.pi)
RADIUS = F(2) * SLOP  # of the skin around polygons and edges
SKINS = RADIUS + RADIUS
MARGIN = F(0.1)  # by which the box of a body is larger than the body
MOST_MOVED = F(2)  # per step
MOST_TURNED = F(0.5) * F(math.pi)
MOST_CORRECTED = F(0.2)
MOST_TURNED_BACK = F(8.0 / 180.0) * F(math.pi)
SHARE = F(0.2)  # of a penetration that an iteration corrects
SHARE_AT_IMPACT = F(0.75)
BOUNCE_SPEED = F(1)
TIME_TO_REST = F(0.5)
RESTING_SPEED = F(0.01)
RESTING_SPIN = F(2.0 / 180.0) * F(math.pi)
MOST_IMPACTS = 8
RELATIVE, ABSOLUTE = (
    F(0.98),
    F(0.001),
)  # by which a side of the polygon must be better than the edge, so that contacts do not flicker
CONDITION = F(1000)  # largest condition number of two points that are solved at once
EPSILON = np.finfo(np.float32).eps
HUGE = np.finfo(np.float32).max

# --- the state row -----------------------------------------------------------------------------------------------------

X, Y, ANGLE, VX, VY, SPIN, REST, LOW_X, LOW_Y, HIGH_X, HIGH_Y, OLD_X, OLD_Y, OLD_ANGLE, OLD_TIME = range(15)
"""Cells of a body: its centre of mass, angle and velocity; how long it has been at rest; its box; where it was at time OLD_TIME."""
BODY = 15
JOINTS = BODIES * BODY
PULL_X, PULL_Y, STOP, MOTOR, LIMIT = range(5)
"""Cells of a joint: the impulses of the last step, and which limit it is at: -1, 0 or 1. Joint j holds leg j + 1."""
JOINT = 5
EDGES = 11
GROUND = JOINTS + 2 * JOINT
"""From here on, the heights of the ends of the ten upper edges. Edge 0 is the floor below them."""
FORCE_X, FORCE_Y, TORQUE = range(GROUND + EDGES, GROUND + EDGES + 3)
"""What acts on the lander in the next step."""
ASLEEP, CRASHED, LEFT_DOWN, RIGHT_DOWN, GROUND_TIME, PAIRS = range(TORQUE + 1, TORQUE + 7)
"""Whether everything is at rest, the lander has touched the ground, each leg stands; from PAIRS on, the pairs that are near."""
NEAR = PAIRS + 1
SLOTS = EDGES * BODIES
"""A pair of an edge and a body has the number ``edge * BODIES + body``. Pairs are listed in the order in which they came near."""
CONTACTS = NEAR + SLOTS
TOUCHING, POINTS, FACE, NORMAL_X, NORMAL_Y, PLANE_X, PLANE_Y, POINT = range(8)
POINT_2 = 12
"""Cells of a contact. FACE is 0 if the plane of contact is the edge's, 1 if it is a side of the polygon's; the plane is in local
coordinates. From POINT on, two points."""
AT_X, AT_Y, FEATURE, PUSH, RUB = range(5)
"""Cells of a point: its place on the other shape, the corners and sides that made it, and its impulses along and across the normal."""
IMPACT, IMPACT_KNOWN, IMPACTS, ENABLED = range(17, 21)
"""Cells of a contact that hold only within a step: its time of impact, and how often it was treated."""
CONTACT = 21
SIZE = CONTACTS + SLOTS * CONTACT

GROUND_FRICTION = np.array([F(0.2), *[F(0.1)] * (EDGES - 1)], F)
BODY_FRICTION = np.array([F(0.1), F(0.2), F(0.2)], F)
FRICTION = np.sqrt(GROUND_FRICTION[:, None] * BODY_FRICTION[None])
WIDTH = 600 / SCALE  # of the visible world
STRIDE = WIDTH / (EDGES - 1)
_EDGE_X = np.array([[0.0, WIDTH], *[[STRIDE * i, STRIDE * (i + 1)] for i in range(EDGES - 1)]], F)

# --- joints --------------------------------------------------------------------------------------------------------------

SIDE = np.array([-1.0, 1.0], F)
ANCHOR = np.array([[-20 / SCALE, 18 / SCALE], [20 / SCALE, 18 / SCALE]], F)  # on the legs
LOWEST = np.array([0.9 - 0.5, -0.9], F)
HIGHEST = np.array([0.9, -0.9 + 0.5], F)
REFERENCE = np.array([-0.05, 0.05], F)  # angle of the legs at the start
MOTOR_SPEED = np.array([-0.3, 0.3], F)
MOTOR_TORQUE = F(40)


@kernel
def cross(ax, ay, bx, by):
    return ax * by - ay * bx


@kernel
def dot(ax, ay, bx, by):
    return ax * bx + ay * by


@kernel
def turn(sin, cos, x, y):
    return cos * x - sin * y, sin * x + cos * y


@kernel
def turn_back(sin, cos, x, y):
    return cos * x + sin * y, -sin * x + cos * y


@kernel
def clamp(value, low, high):
    """Clip ``value`` to [low, high]."""
    value = min(value, high)
    return max(value, low)


@kernel
def cell(s, index):
    """Return a cell of the state as float32."""
    return F(s[index])


@kernel
def pose(body, x, y, angle):
    """Return the pose of a body with its centre of mass at (x, y)."""
    sin = F(math.sin(angle))
    cos = F(math.cos(angle))
    cx, cy = turn(sin, cos, CENTRES[body, 0], CENTRES[body, 1])
    return sin, cos, x - cx, y - cy


@kernel
def pose_now(s, body):
    place = body * BODY
    return pose(body, cell(s, place + X), cell(s, place + Y), cell(s, place + ANGLE))


@kernel
def placed(sin, cos, px, py, x, y):
    """Return where a point of a body is in the world."""
    wx, wy = turn(sin, cos, x, y)
    return wx + px, wy + py


@kernel
def edge_ends(s, edge):
    """Return (x1, y1, x2, y2) of an edge."""
    if edge == 0:
        return _EDGE_X[0, 0], ZERO, _EDGE_X[0, 1], ZERO
    return _EDGE_X[edge, 0], cell(s, GROUND + edge - 1), _EDGE_X[edge, 1], cell(s, GROUND + edge)


# --- which pairs are near ------------------------------------------------------------------------------------------------


@kernel
def body_box(body, sin, cos, px, py):
    """Return (low x, low y, high x, high y) of a body with its skin."""
    low_x, low_y = placed(sin, cos, px, py, VERTICES[body, 0, 0], VERTICES[body, 0, 1])
    high_x, high_y = low_x, low_y
    for i in range(1, CORNERS[body]):
        x, y = placed(sin, cos, px, py, VERTICES[body, i, 0], VERTICES[body, i, 1])
        low_x = min(low_x, x)
        low_y = min(low_y, y)
        high_x = max(high_x, x)
        high_y = max(high_y, y)
    return low_x - RADIUS, low_y - RADIUS, high_x + RADIUS, high_y + RADIUS


@kernel
def boxes_meet(s, edge, body):
    """Whether the boxes of an edge and of a body overlap."""
    x1, y1, x2, y2 = edge_ends(s, edge)
    place = body * BODY
    left = min(x1, x2) - RADIUS - MARGIN
    right = max(x1, x2) + RADIUS + MARGIN
    bottom = min(y1, y2) - RADIUS - MARGIN
    top = max(y1, y2) + RADIUS + MARGIN
    apart = cell(s, place + LOW_X) - right > ZERO or cell(s, place + LOW_Y) - top > ZERO
    return not (apart or left - cell(s, place + HIGH_X) > ZERO or bottom - cell(s, place + HIGH_Y) > ZERO)


@kernel
def follow(s, body):
    """Renew the box of a body if it has left it, with room in the direction of its motion. Returns whether it was renewed."""
    place = body * BODY
    sin, cos, px, py = pose(body, cell(s, place + OLD_X), cell(s, place + OLD_Y), cell(s, place + OLD_ANGLE))
    low_x, low_y, high_x, high_y = body_box(body, sin, cos, px, py)
    sin, cos, qx, qy = pose_now(s, body)
    now_low_x, now_low_y, now_high_x, now_high_y = body_box(body, sin, cos, qx, qy)
    low_x = min(low_x, now_low_x)
    low_y = min(low_y, now_low_y)
    high_x = max(high_x, now_high_x)
    high_y = max(high_y, now_high_y)
    inside = cell(s, place + LOW_X) <= low_x and cell(s, place + LOW_Y) <= low_y
    if inside and high_x <= cell(s, place + HIGH_X) and high_y <= cell(s, place + HIGH_Y):
        return False
    ahead_x = TWO * (qx - px)
    ahead_y = TWO * (qy - py)
    low_x = low_x - MARGIN
    low_y = low_y - MARGIN
    high_x = high_x + MARGIN
    high_y = high_y + MARGIN
    s[place + LOW_X] = low_x + ahead_x if ahead_x < ZERO else low_x
    s[place + LOW_Y] = low_y + ahead_y if ahead_y < ZERO else low_y
    s[place + HIGH_X] = high_x if ahead_x < ZERO else high_x + ahead_x
    s[place + HIGH_Y] = high_y if ahead_y < ZERO else high_y + ahead_y
    return True


@kernel
def pairs(s):
    """Number of near pairs."""
    count = s[PAIRS]
    return min(max(np.int64(count), 0), SLOTS) if count > 0 else 0


@kernel
def slot_at(s, k):
    """Number of the near pair at place ``k`` of the list."""
    return min(max(np.int64(s[NEAR + k]), 0), SLOTS - 1)


@kernel
def find_pairs(s, renewed):
    """Add the pairs whose boxes overlap now, for the bodies marked in the bits ``renewed``."""
    if renewed == 0:
        return
    for slot in range(SLOTS):
        body = slot % BODIES
        if (renewed >> body) & 1 == 0 or not boxes_meet(s, slot // BODIES, body):
            continue
        count = pairs(s)
        known = False
        for k in range(count):
            known |= slot_at(s, k) == slot
        if not known and count < SLOTS:
            s[NEAR + count] = slot
            s[PAIRS] = count + 1
            place = CONTACTS + slot * CONTACT
            for i in range(CONTACT):
                s[place + i] = 0.0
            s[place + ENABLED] = 1.0


# --- contacts ------------------------------------------------------------------------------------------------------------


@kernel
def clip(points, ids, nx, ny, offset, corner):
    """Cut the segment ``points`` (2, 2) at a line. Returns whether two points are left; ``ids`` are their features."""
    d0 = dot(nx, ny, points[0, 0], points[0, 1]) - offset
    d1 = dot(nx, ny, points[1, 0], points[1, 1]) - offset
    if d0 > ZERO and d1 > ZERO:
        return False
    if d0 * d1 < ZERO:
        share = d0 / (d0 - d1)
        x = points[0, 0] + share * (points[1, 0] - points[0, 0])
        y = points[0, 1] + share * (points[1, 1] - points[0, 1])
        feature = feature_of(corner, (ids[0] // 64) % 64, 0, 1)
        if d0 > ZERO:  # the second point stays, and becomes the first
            points[0, 0] = points[1, 0]
            points[0, 1] = points[1, 1]
            ids[0] = ids[1]
        points[1, 0] = x
        points[1, 1] = y
        ids[1] = feature
        return True
    return d0 <= ZERO and d1 <= ZERO


@kernel
def feature_of(first, second, first_is_face, second_is_face):
    """Return one number for the corners or sides of the two shapes that made a point."""
    return first + 64 * second + 4096 * first_is_face + 8192 * second_is_face


@kernel
def collide(s, slot, points, ids):
    """Renew the plane and the points of a contact. Returns the number of points; ``points`` (2, 2) and ``ids`` (2,) are scratch."""
    edge = slot // BODIES
    body = slot % BODIES
    contact = CONTACTS + slot * CONTACT
    corners = CORNERS[body]
    sin, cos, px, py = pose_now(s, body)
    x1, y1, x2, y2 = edge_ends(s, edge)
    along_x = x2 - x1
    along_y = y2 - y1
    length = F(math.sqrt(along_x * along_x + along_y * along_y))
    inverse = ONE / length
    along_x *= inverse
    along_y *= inverse
    nx = along_y
    ny = -along_x
    cx, cy = placed(sin, cos, px, py, CENTROIDS[body, 0], CENTROIDS[body, 1])
    front = dot(nx, ny, cx - x1, cy - y1) >= ZERO
    if not front:
        nx = -nx
        ny = -ny

    # the distance along the edge's normal, and the largest along a normal of the polygon's
    edge_distance = HUGE
    for i in range(corners):
        vx, vy = placed(sin, cos, px, py, VERTICES[body, i, 0], VERTICES[body, i, 1])
        edge_distance = min(edge_distance, dot(nx, ny, vx - x1, vy - y1))
    if edge_distance > SKINS:
        return 0
    side = -1
    side_distance = -HUGE
    for i in range(corners):
        vx, vy = placed(sin, cos, px, py, VERTICES[body, i, 0], VERTICES[body, i, 1])
        mx, my = turn(sin, cos, NORMALS[body, i, 0], NORMALS[body, i, 1])
        mx = -mx
        my = -my
        distance = min(dot(mx, my, vx - x1, vy - y1), dot(mx, my, vx - x2, vy - y2))
        if distance > SKINS:
            return 0
        # an edge without neighbours allows normals on its own side only
        if dot(mx + nx, my + ny, nx, ny) < -ANGULAR_SLOP:
            continue
        if distance > side_distance:
            side_distance = distance
            side = i
    by_side = side >= 0 and side_distance > RELATIVE * edge_distance + ABSOLUTE

    if by_side:
        points[0, 0] = x1
        points[0, 1] = y1
        points[1, 0] = x2
        points[1, 1] = y2
        ids[0] = ids[1] = feature_of(0, side, 0, 1)
        first = side
        second = side + 1 if side + 1 < corners else 0
        rx, ry = placed(sin, cos, px, py, VERTICES[body, first, 0], VERTICES[body, first, 1])
        tx, ty = placed(sin, cos, px, py, VERTICES[body, second, 0], VERTICES[body, second, 1])
        nx, ny = turn(sin, cos, NORMALS[body, side, 0], NORMALS[body, side, 1])
    else:
        best = 0
        mx, my = turn(sin, cos, NORMALS[body, 0, 0], NORMALS[body, 0, 1])
        lowest = dot(nx, ny, mx, my)
        for i in range(1, corners):
            mx, my = turn(sin, cos, NORMALS[body, i, 0], NORMALS[body, i, 1])
            value = dot(nx, ny, mx, my)
            if value < lowest:
                lowest = value
                best = i
        after = best + 1 if best + 1 < corners else 0
        points[0, 0], points[0, 1] = placed(sin, cos, px, py, VERTICES[body, best, 0], VERTICES[body, best, 1])
        points[1, 0], points[1, 1] = placed(sin, cos, px, py, VERTICES[body, after, 0], VERTICES[body, after, 1])
        ids[0] = feature_of(0, best, 1, 0)
        ids[1] = feature_of(0, after, 1, 0)
        if front:
            first, second = 0, 1
            rx, ry = x1, y1
            tx, ty = x2, y2
        else:
            first, second = 1, 0
            rx, ry = x2, y2
            tx, ty = x1, y1
    if not clip(points, ids, ny, -nx, dot(ny, -nx, rx, ry), first):
        return 0
    if not clip(points, ids, -ny, nx, dot(-ny, nx, tx, ty), second):
        return 0

    s[contact + FACE] = 1.0 if by_side else 0.0
    if by_side:
        s[contact + NORMAL_X] = NORMALS[body, side, 0]
        s[contact + NORMAL_Y] = NORMALS[body, side, 1]
        s[contact + PLANE_X] = VERTICES[body, side, 0]
        s[contact + PLANE_Y] = VERTICES[body, side, 1]
    else:
        s[contact + NORMAL_X] = nx
        s[contact + NORMAL_Y] = ny
        s[contact + PLANE_X] = rx
        s[contact + PLANE_Y] = ry
    count = 0
    for i in range(2):
        if dot(nx, ny, points[i, 0] - rx, points[i, 1] - ry) <= SKINS:
            place = contact + POINT + count * 5
            feature = ids[i]
            if by_side:
                s[place + AT_X] = points[i, 0]
                s[place + AT_Y] = points[i, 1]
                feature = feature_of((feature // 64) % 64, feature % 64, feature // 8192, (feature // 4096) % 2)
            else:
                lx, ly = turn_back(sin, cos, points[i, 0] - px, points[i, 1] - py)
                s[place + AT_X] = lx
                s[place + AT_Y] = ly
            s[place + FEATURE] = feature
            count += 1
    return count


@kernel
def renew(s, slot, points, ids):
    """Renew a contact for the present poses, keep the impulses of the points that remain, and note what begins or ends to touch."""
    body = slot % BODIES
    contact = CONTACTS + slot * CONTACT
    known = np.int64(s[contact + POINTS])
    features = (s[contact + POINT + FEATURE], s[contact + POINT_2 + FEATURE])
    pushes = (s[contact + POINT + PUSH], s[contact + POINT_2 + PUSH])
    rubs = (s[contact + POINT + RUB], s[contact + POINT_2 + RUB])
    count = collide(s, slot, points, ids)
    for i in range(count):
        place = contact + POINT + i * 5
        s[place + PUSH] = 0.0
        s[place + RUB] = 0.0
        for j in range(min(known, 2)):
            if features[j] == s[place + FEATURE]:
                s[place + PUSH] = pushes[j]
                s[place + RUB] = rubs[j]
                break
    s[contact + POINTS] = count
    s[contact + ENABLED] = 1.0
    touched = s[contact + TOUCHING] != 0.0
    s[contact + TOUCHING] = 1.0 if count > 0 else 0.0
    if count > 0 and not touched:
        if body == LANDER:
            s[CRASHED] = 1.0
        else:
            s[LEFT_DOWN + body - 1] = 1.0
    elif touched and count == 0 and body != LANDER:
        s[LEFT_DOWN + body - 1] = 0.0


@kernel
def renew_all(s, points, ids):
    """Renew all near pairs, the newest first, and forget those whose boxes have parted."""
    k = pairs(s) - 1
    while k >= 0:
        slot = slot_at(s, k)
        body = slot % BODIES
        if boxes_meet(s, slot // BODIES, body):
            renew(s, slot, points, ids)
        else:
            if s[CONTACTS + slot * CONTACT + TOUCHING] != 0.0 and body != LANDER:
                s[LEFT_DOWN + body - 1] = 0.0
            s[CONTACTS + slot * CONTACT + TOUCHING] = 0.0
            count = pairs(s)
            for i in range(k, count - 1):
                s[NEAR + i] = s[NEAR + i + 1]
            s[PAIRS] = count - 1
        k -= 1


# Columns of a contact while it is solved. The velocities of the ground are 0, so only the body's count.
(
    C_BODY,
    C_SLOT,
    C_COUNT,  # of points that are solved
    C_FRICTION,
    C_NX,
    C_NY,
    C_K11,  # the matrix of two points that push at once, and its inverse
    C_K12,
    C_K22,
    C_I11,
    C_I12,
    C_I22,
    C_POINT,
) = range(13)
P_X, P_Y, P_MASS, P_RUB_MASS, P_BOUNCE, P_PUSH, P_RUB = range(7)
C_KEPT = C_POINT + 14
C_WIDTH = C_KEPT + 4


@kernel
def world_point(s, contact, i, body, x, y, angle):
    """Return (normal x, normal y, plane x, plane y, point x, point y) of a contact in the world, with the normal away from the ground."""
    sin, cos, px, py = pose(body, x, y, angle)
    place = contact + POINT + i * 5
    nx = cell(s, contact + NORMAL_X)
    ny = cell(s, contact + NORMAL_Y)
    plane_x = cell(s, contact + PLANE_X)
    plane_y = cell(s, contact + PLANE_Y)
    at_x = cell(s, place + AT_X)
    at_y = cell(s, place + AT_Y)
    if s[contact + FACE] == 0.0:
        at_x, at_y = placed(sin, cos, px, py, at_x, at_y)
    else:
        nx, ny = turn(sin, cos, nx, ny)
        plane_x, plane_y = placed(sin, cos, px, py, plane_x, plane_y)
    return nx, ny, plane_x, plane_y, at_x, at_y


@kernel
def prepare(s, c, row, slot, warm):
    """Fill a row of the contact table ``c`` for the present pose of the body."""
    body = slot % BODIES
    contact = CONTACTS + slot * CONTACT
    place = body * BODY
    x = cell(s, place + X)
    y = cell(s, place + Y)
    mass = INVERSE_MASS[body]
    inertia = INVERSE_INERTIA[body]
    count = min(max(np.int64(s[contact + POINTS]), 0), 2)
    c[row, C_BODY] = body
    c[row, C_SLOT] = slot
    c[row, C_COUNT] = count
    c[row, C_FRICTION] = FRICTION[slot // BODIES, body]
    by_side = s[contact + FACE] != 0.0
    nx = ZERO
    ny = ZERO
    for i in range(count):
        nx, ny, plane_x, plane_y, at_x, at_y = world_point(s, contact, i, body, x, y, cell(s, place + ANGLE))
        reach = RADIUS - dot(at_x - plane_x, at_y - plane_y, nx, ny)
        # the middle between the two skins
        first_x = at_x + reach * nx
        first_y = at_y + reach * ny
        second_x = at_x - RADIUS * nx
        second_y = at_y - RADIUS * ny
        rx = HALF * (first_x + second_x) - x
        ry = HALF * (first_y + second_y) - y
        if by_side:
            nx = -nx
            ny = -ny
        p = C_POINT + 7 * i
        c[row, p + P_X] = rx
        c[row, p + P_Y] = ry
        across = cross(rx, ry, nx, ny)
        k = mass + inertia * across * across
        c[row, p + P_MASS] = ONE / k
        across = cross(rx, ry, ny, -nx)
        k = mass + inertia * across * across
        c[row, p + P_RUB_MASS] = ONE / k
        c[row, p + P_BOUNCE] = ZERO  # nothing bounces here
        c[row, p + P_PUSH] = cell(s, contact + POINT + 5 * i + PUSH) if warm else ZERO
        c[row, p + P_RUB] = cell(s, contact + POINT + 5 * i + RUB) if warm else ZERO
    c[row, C_NX] = nx
    c[row, C_NY] = ny
    if count == 2:
        q = C_POINT + 7
        first = cross(c[row, C_POINT + P_X], c[row, C_POINT + P_Y], nx, ny)
        second = cross(c[row, q + P_X], c[row, q + P_Y], nx, ny)
        k11 = mass + inertia * first * first
        k22 = mass + inertia * second * second
        k12 = mass + inertia * first * second
        if k11 * k11 < CONDITION * (k11 * k22 - k12 * k12):
            determinant = k11 * k22 - k12 * k12
            if determinant != ZERO:
                determinant = ONE / determinant
            c[row, C_K11] = k11
            c[row, C_K12] = k12
            c[row, C_K22] = k22
            c[row, C_I11] = determinant * k22
            c[row, C_I12] = -determinant * k12
            c[row, C_I22] = determinant * k11
        else:  # the two points are nearly one
            c[row, C_COUNT] = 1


@kernel
def start_warm(c, count, v):
    """Apply the impulses of the last step to the velocities ``v`` (3, 3)."""
    for row in range(count):
        body = np.int64(c[row, C_BODY])
        nx = c[row, C_NX]
        ny = c[row, C_NY]
        for i in range(np.int64(c[row, C_COUNT])):
            p = C_POINT + 7 * i
            jx = c[row, p + P_PUSH] * nx + c[row, p + P_RUB] * ny
            jy = c[row, p + P_PUSH] * ny + c[row, p + P_RUB] * -nx
            v[body, 2] += INVERSE_INERTIA[body] * cross(c[row, p + P_X], c[row, p + P_Y], jx, jy)
            v[body, 0] += INVERSE_MASS[body] * jx
            v[body, 1] += INVERSE_MASS[body] * jy


@kernel
def solve_row(c, row, v):
    """One iteration for a contact: friction at each point, then the push of one or two points. Returns whether an impulse changed."""
    body = np.int64(c[row, C_BODY])
    mass = INVERSE_MASS[body]
    inertia = INVERSE_INERTIA[body]
    vx = v[body, 0]
    vy = v[body, 1]
    w = v[body, 2]
    nx = c[row, C_NX]
    ny = c[row, C_NY]
    tx = ny
    ty = -nx
    count = np.int64(c[row, C_COUNT])
    changed = False
    for i in range(count):
        p = C_POINT + 7 * i
        rx = c[row, p + P_X]
        ry = c[row, p + P_Y]
        speed = dot(vx + -w * ry, vy + w * rx, tx, ty)
        most = c[row, C_FRICTION] * c[row, p + P_PUSH]
        old = c[row, p + P_RUB]
        new = clamp(old + c[row, p + P_RUB_MASS] * -speed, -most, most)
        c[row, p + P_RUB] = new
        changed |= new != old
        part = new - old
        jx = part * tx
        jy = part * ty
        vx += mass * jx
        vy += mass * jy
        w += inertia * cross(rx, ry, jx, jy)
    if count == 1:
        p = C_POINT
        rx = c[row, p + P_X]
        ry = c[row, p + P_Y]
        speed = dot(vx + -w * ry, vy + w * rx, nx, ny)
        old = c[row, p + P_PUSH]
        new = max(old + -c[row, p + P_MASS] * (speed - c[row, p + P_BOUNCE]), ZERO)
        c[row, p + P_PUSH] = new
        changed |= new != old
        part = new - old
        jx = part * nx
        jy = part * ny
        vx += mass * jx
        vy += mass * jy
        w += inertia * cross(rx, ry, jx, jy)
    elif count == 2:
        p = C_POINT
        q = C_POINT + 7
        ax = c[row, p + P_PUSH]
        ay = c[row, q + P_PUSH]
        speed1 = dot(vx + -w * c[row, p + P_Y], vy + w * c[row, p + P_X], nx, ny)
        speed2 = dot(vx + -w * c[row, q + P_Y], vy + w * c[row, q + P_X], nx, ny)
        k11 = c[row, C_K11]
        k12 = c[row, C_K12]
        k22 = c[row, C_K22]
        bx = (speed1 - c[row, p + P_BOUNCE]) - (k11 * ax + k12 * ay)
        by = (speed2 - c[row, q + P_BOUNCE]) - (k12 * ax + k22 * ay)
        # the four cases of the linear complementarity problem: both points push, one of them, or none
        x = -(c[row, C_I11] * bx + c[row, C_I12] * by)
        y = -(c[row, C_I12] * bx + c[row, C_I22] * by)
        found = x >= ZERO and y >= ZERO
        if not found:
            x = -c[row, p + P_MASS] * bx
            y = ZERO
            found = x >= ZERO and k12 * x + by >= ZERO
        if not found:
            x = ZERO
            y = -c[row, q + P_MASS] * by
            found = y >= ZERO and k12 * y + bx >= ZERO
        if not found:
            x = ZERO
            y = ZERO
            found = bx >= ZERO and by >= ZERO
        if found:
            dx = x - ax
            dy = y - ay
            j1x = dx * nx
            j1y = dx * ny
            j2x = dy * nx
            j2y = dy * ny
            vx += mass * (j1x + j2x)
            vy += mass * (j1y + j2y)
            w += inertia * (
                cross(c[row, p + P_X], c[row, p + P_Y], j1x, j1y) + cross(c[row, q + P_X], c[row, q + P_Y], j2x, j2y)
            )
            c[row, p + P_PUSH] = x
            c[row, q + P_PUSH] = y
            changed |= x != ax or y != ay
    v[body, 0] = vx
    v[body, 1] = vy
    v[body, 2] = w
    return changed


@kernel
def push_out(s, c, count, share, target):
    """One iteration of position correction for the contacts in the table. Returns whether all penetrations are below ``target``."""
    deepest = ZERO
    for row in range(count):
        body = np.int64(c[row, C_BODY])
        contact = CONTACTS + np.int64(c[row, C_SLOT]) * CONTACT
        place = body * BODY
        mass = INVERSE_MASS[body]
        inertia = INVERSE_INERTIA[body]
        x = cell(s, place + X)
        y = cell(s, place + Y)
        angle = cell(s, place + ANGLE)
        for i in range(min(max(np.int64(s[contact + POINTS]), 0), 2)):
            nx, ny, plane_x, plane_y, at_x, at_y = world_point(s, contact, i, body, x, y, angle)
            distance = dot(at_x - plane_x, at_y - plane_y, nx, ny) - RADIUS - RADIUS
            if s[contact + FACE] != 0.0:
                nx = -nx
                ny = -ny
            rx = at_x - x
            ry = at_y - y
            deepest = min(deepest, distance)
            correction = clamp(share * (distance + SLOP), -MOST_CORRECTED, ZERO)
            across = cross(rx, ry, nx, ny)
            k = mass + inertia * across * across
            part = -correction / k
            jx = part * nx
            jy = part * ny
            x += mass * jx
            y += mass * jy
            angle += inertia * cross(rx, ry, jx, jy)
        s[place + X] = x
        s[place + Y] = y
        s[place + ANGLE] = angle
    return deepest >= target * SLOP


# --- joints --------------------------------------------------------------------------------------------------------------


@kernel
def arms(s, j):
    """Return (ax, ay, bx, by): from the centres of mass of the lander and of leg ``j`` to the joint."""
    leg = j + 1
    angle = cell(s, LANDER * BODY + ANGLE)
    ax, ay = turn(F(math.sin(angle)), F(math.cos(angle)), ZERO - CENTRES[LANDER, 0], ZERO - CENTRES[LANDER, 1])
    angle = cell(s, leg * BODY + ANGLE)
    bx, by = turn(F(math.sin(angle)), F(math.cos(angle)), ANCHOR[j, 0] - CENTRES[leg, 0], ANCHOR[j, 1] - CENTRES[leg, 1])
    return ax, ay, bx, by


@kernel
def prepare_joint(s, j, v):
    """Find out which limit a joint is at, and apply the impulses of the last step. Returns the joint's matrix as a tuple."""
    joint = JOINTS + j * JOINT
    leg = j + 1
    ma = INVERSE_MASS[LANDER]
    mb = INVERSE_MASS[leg]
    ia = INVERSE_INERTIA[LANDER]
    ib = INVERSE_INERTIA[leg]
    ax, ay, bx, by = arms(s, j)
    k11 = ma + mb + ay * ay * ia + by * by * ib
    k12 = -ay * ax * ia - by * bx * ib
    k13 = -ay * ia - by * ib
    k22 = ma + mb + ax * ax * ia + bx * bx * ib
    k23 = ax * ia + bx * ib
    k33 = ia + ib
    angle = cell(s, leg * BODY + ANGLE) - cell(s, LANDER * BODY + ANGLE) - REFERENCE[j]
    limit = -1.0 if angle <= LOWEST[j] else 1.0 if angle >= HIGHEST[j] else 0.0
    if limit == 0.0 or limit != s[joint + LIMIT]:
        s[joint + STOP] = 0.0
    s[joint + LIMIT] = limit
    x = cell(s, joint + PULL_X)
    y = cell(s, joint + PULL_Y)
    stop = cell(s, joint + STOP)
    motor = cell(s, joint + MOTOR)
    v[LANDER, 0] -= ma * x
    v[LANDER, 1] -= ma * y
    v[LANDER, 2] -= ia * (cross(ax, ay, x, y) + motor + stop)
    v[leg, 0] += mb * x
    v[leg, 1] += mb * y
    v[leg, 2] += ib * (cross(bx, by, x, y) + motor + stop)
    return ax, ay, bx, by, k11, k12, k13, k22, k23, k33


@kernel
def solve_joint(j, matrix, limit, lander, leg, impulses):
    """One iteration for a joint: its motor, then its limit and its pivot.

    ``lander`` and ``leg`` are velocities (x, y, spin). ``impulses`` are those of (stop, motor). Returns all three, renewed, and the
    impulse (x, y) that this iteration adds at the pivot.
    """
    ax, ay, bx, by, k11, k12, k13, k22, k23, k33 = matrix
    vax, vay, wa = lander
    vbx, vby, wb = leg
    stop, motor = impulses
    ma = INVERSE_MASS[LANDER]
    mb = INVERSE_MASS[j + 1]
    ia = INVERSE_INERTIA[LANDER]
    ib = INVERSE_INERTIA[j + 1]

    most = STEP * MOTOR_TORQUE
    old = motor
    motor = clamp(old + -(ONE / k33) * (wb - wa - MOTOR_SPEED[j]), -most, most)
    part = motor - old
    wa -= ia * part
    wb += ib * part

    ux = vbx + -wb * by - vax - -wa * ay
    uy = vby + wb * bx - vay - wa * ax
    if limit != 0.0:
        uz = wb - wa
        # columns (k11 k12 k13), (k12 k22 k23), (k13 k23 k33)
        yzx = k22 * k33 - k23 * k23
        yzy = k23 * k13 - k12 * k33
        yzz = k12 * k23 - k22 * k13
        determinant = k11 * yzx + k12 * yzy + k13 * yzz
        if determinant != ZERO:
            determinant = ONE / determinant
        jx = -(determinant * (ux * yzx + uy * yzy + uz * yzz))
        jy = -(determinant * (k11 * (uy * k33 - uz * k23) + k12 * (uz * k13 - ux * k33) + k13 * (ux * k23 - uy * k13)))
        jz = -(determinant * (k11 * (k22 * uz - k23 * uy) + k12 * (k23 * ux - k12 * uz) + k13 * (k12 * uy - k22 * ux)))
        new = stop + jz
        if (limit < 0.0 and new < ZERO) or (limit > 0.0 and new > ZERO):  # the limit would pull: let go of it
            right_x = -ux + stop * k13
            right_y = -uy + stop * k23
            determinant = k11 * k22 - k12 * k12
            if determinant != ZERO:
                determinant = ONE / determinant
            jx = determinant * (k22 * right_x - k12 * right_y)
            jy = determinant * (k11 * right_y - k12 * right_x)
            jz = -stop
            stop = ZERO
        else:
            stop = new
        vax -= ma * jx
        vay -= ma * jy
        wa -= ia * (cross(ax, ay, jx, jy) + jz)
        vbx += mb * jx
        vby += mb * jy
        wb += ib * (cross(bx, by, jx, jy) + jz)
    else:
        determinant = k11 * k22 - k12 * k12
        if determinant != ZERO:
            determinant = ONE / determinant
        jx = determinant * (k22 * -ux - k12 * -uy)
        jy = determinant * (k11 * -uy - k12 * -ux)
        vax -= ma * jx
        vay -= ma * jy
        wa -= ia * cross(ax, ay, jx, jy)
        vbx += mb * jx
        vby += mb * jy
        wb += ib * cross(bx, by, jx, jy)
    return (vax, vay, wa), (vbx, vby, wb), (stop, motor), (jx, jy)


@kernel
def pull_together(s, j):
    """One iteration of position correction for a joint. Returns whether its error is within the tolerance."""
    joint = JOINTS + j * JOINT
    leg = j + 1
    ma = INVERSE_MASS[LANDER]
    mb = INVERSE_MASS[leg]
    ia = INVERSE_INERTIA[LANDER]
    ib = INVERSE_INERTIA[leg]
    angular_error = ZERO
    if s[joint + LIMIT] != 0.0:
        angle = cell(s, leg * BODY + ANGLE) - cell(s, LANDER * BODY + ANGLE) - REFERENCE[j]
        motor_mass = ONE / (ia + ib)
        if s[joint + LIMIT] < 0.0:
            beyond = angle - LOWEST[j]
            angular_error = -beyond
            beyond = clamp(beyond + ANGULAR_SLOP, -MOST_TURNED_BACK, ZERO)
        else:
            beyond = angle - HIGHEST[j]
            angular_error = beyond
            beyond = clamp(beyond - ANGULAR_SLOP, ZERO, MOST_TURNED_BACK)
        part = -motor_mass * beyond
        s[LANDER * BODY + ANGLE] = cell(s, LANDER * BODY + ANGLE) - ia * part
        s[leg * BODY + ANGLE] = cell(s, leg * BODY + ANGLE) + ib * part
    ax, ay, bx, by = arms(s, j)
    dx = cell(s, leg * BODY + X) + bx - cell(s, LANDER * BODY + X) - ax
    dy = cell(s, leg * BODY + Y) + by - cell(s, LANDER * BODY + Y) - ay
    error = F(math.sqrt(dx * dx + dy * dy))
    k11 = ma + mb + ia * ay * ay + ib * by * by
    k12 = -ia * ax * ay - ib * bx * by
    k22 = ma + mb + ia * ax * ax + ib * bx * bx
    determinant = k11 * k22 - k12 * k12
    if determinant != ZERO:
        determinant = ONE / determinant
    jx = -(determinant * (k22 * dx - k12 * dy))
    jy = -(determinant * (k11 * dy - k12 * dx))
    s[LANDER * BODY + X] = cell(s, LANDER * BODY + X) - ma * jx
    s[LANDER * BODY + Y] = cell(s, LANDER * BODY + Y) - ma * jy
    s[LANDER * BODY + ANGLE] = cell(s, LANDER * BODY + ANGLE) - ia * cross(ax, ay, jx, jy)
    s[leg * BODY + X] = cell(s, leg * BODY + X) + mb * jx
    s[leg * BODY + Y] = cell(s, leg * BODY + Y) + mb * jy
    s[leg * BODY + ANGLE] = cell(s, leg * BODY + ANGLE) + ib * cross(bx, by, jx, jy)
    return error <= SLOP and angular_error <= ANGULAR_SLOP


# --- a step ---------------------------------------------------------------------------------------------------------------


@kernel
def move(s, body, v, time):
    """Move a body with its velocity for ``time`` seconds; a velocity that is too large for one step is reduced."""
    place = body * BODY
    vx = v[body, 0]
    vy = v[body, 1]
    w = v[body, 2]
    dx = time * vx
    dy = time * vy
    if dx * dx + dy * dy > MOST_MOVED * MOST_MOVED:
        ratio = MOST_MOVED / F(math.sqrt(dx * dx + dy * dy))
        vx *= ratio
        vy *= ratio
    angle = time * w
    if angle * angle > MOST_TURNED * MOST_TURNED:
        w *= MOST_TURNED / abs(angle)
    s[place + X] = cell(s, place + X) + time * vx
    s[place + Y] = cell(s, place + Y) + time * vy
    s[place + ANGLE] = cell(s, place + ANGLE) + time * w
    s[place + VX] = vx
    s[place + VY] = vy
    s[place + SPIN] = w


@kernel
def remember(c, count):
    """Keep the impulses of the contacts beside them."""
    for row in range(count):
        for i in range(np.int64(c[row, C_COUNT])):
            place = C_POINT + 7 * i
            c[row, C_KEPT + 2 * i] = c[row, place + P_PUSH]
            c[row, C_KEPT + 2 * i + 1] = c[row, place + P_RUB]


@kernel
def remembered(c, count):
    """Whether the impulses of the contacts are those that were kept."""
    for row in range(count):
        for i in range(np.int64(c[row, C_COUNT])):
            place = C_POINT + 7 * i
            if c[row, C_KEPT + 2 * i] != c[row, place + P_PUSH] or c[row, C_KEPT + 2 * i + 1] != c[row, place + P_RUB]:
                return False
    return True


@kernel
def iterate(v, c, count, joint_1, joint_0, limit_1, limit_0, pulls_1, pulls_0):
    """Solve joints and contacts for the velocities ``v`` (3, 3). Returns the impulses of the joints.

    Rounded numbers soon stay the same or return in turns; a comparison with one earlier iteration, each time a power of two, finds that
    (Brent 1980). Then only the impulses at the pivots still grow, by parts that are known after one more turn.
    """
    lander = (v[0, 0], v[0, 1], v[0, 2])
    left = (v[1, 0], v[1, 1], v[1, 2])
    right = (v[2, 0], v[2, 1], v[2, 2])
    x1, y1 = pulls_1[0], pulls_1[1]
    x0, y0 = pulls_0[0], pulls_0[1]
    held_1 = (pulls_1[2], pulls_1[3])
    held_0 = (pulls_0[2], pulls_0[3])
    kept = (lander, left, right, held_1, held_0)
    remember(c, count)
    parts = np.empty((MOST_TURNS, 4), np.float32)
    age = 0
    most = 1
    left_to_do = VELOCITY_ITERATIONS
    turn_length = 0  # once the numbers return
    recorded = 0
    while left_to_do > 0:
        lander, right, held_1, part_1 = solve_joint(1, joint_1, limit_1, lander, right, held_1)
        lander, left, held_0, part_0 = solve_joint(0, joint_0, limit_0, lander, left, held_0)
        x1 += part_1[0]
        y1 += part_1[1]
        x0 += part_0[0]
        y0 += part_0[1]
        if count > 0:
            v[0, 0], v[0, 1], v[0, 2] = lander
            v[1, 0], v[1, 1], v[1, 2] = left
            v[2, 0], v[2, 1], v[2, 2] = right
            for row in range(count):
                solve_row(c, row, v)
            lander = (v[0, 0], v[0, 1], v[0, 2])
            left = (v[1, 0], v[1, 1], v[1, 2])
            right = (v[2, 0], v[2, 1], v[2, 2])
        left_to_do -= 1
        if turn_length == 0:
            age += 1
            if age <= MOST_TURNS and kept == (lander, left, right, held_1, held_0) and remembered(c, count):
                turn_length = age
            elif age == most:
                kept = (lander, left, right, held_1, held_0)
                remember(c, count)
                age = 0
                most *= 2
        elif recorded < turn_length:
            parts[recorded, 0] = part_1[0]
            parts[recorded, 1] = part_1[1]
            parts[recorded, 2] = part_0[0]
            parts[recorded, 3] = part_0[1]
            recorded += 1
            if recorded == turn_length:
                while left_to_do >= turn_length:
                    for i in range(turn_length):
                        x1 += parts[i, 0]
                        y1 += parts[i, 1]
                        x0 += parts[i, 2]
                        y0 += parts[i, 3]
                    left_to_do -= turn_length
    v[0, 0], v[0, 1], v[0, 2] = lander
    v[1, 0], v[1, 1], v[1, 2] = left
    v[2, 0], v[2, 1], v[2, 2] = right
    return (x1, y1, held_1[0], held_1[1]), (x0, y0, held_0[0], held_0[1])


@kernel
def solve(s, gravity, c, v):
    """Advance velocities and positions by one step with all forces, joints and contacts, and find out whether everything rests."""
    for body in range(BODIES):
        place = body * BODY
        s[place + OLD_X] = s[place + X]
        s[place + OLD_Y] = s[place + Y]
        s[place + OLD_ANGLE] = s[place + ANGLE]
        force_x = cell(s, FORCE_X) if body == LANDER else ZERO
        force_y = cell(s, FORCE_Y) if body == LANDER else ZERO
        torque = cell(s, TORQUE) if body == LANDER else ZERO
        v[body, 0] = cell(s, place + VX) + STEP * (INVERSE_MASS[body] * force_x)
        v[body, 1] = cell(s, place + VY) + STEP * (gravity + INVERSE_MASS[body] * force_y)
        v[body, 2] = cell(s, place + SPIN) + STEP * INVERSE_INERTIA[body] * torque

    count = 0
    for body in (2, 0, 1):
        for k in range(pairs(s) - 1, -1, -1):
            slot = slot_at(s, k)
            if slot % BODIES == body and s[CONTACTS + slot * CONTACT + TOUCHING] != 0.0:
                prepare(s, c, count, slot, True)
                count += 1
    start_warm(c, count, v)
    joint_1 = prepare_joint(s, 1, v)
    joint_0 = prepare_joint(s, 0, v)
    first = JOINTS
    second = JOINTS + JOINT
    pulls_0 = (cell(s, first + PULL_X), cell(s, first + PULL_Y), cell(s, first + STOP), cell(s, first + MOTOR))
    pulls_1 = (cell(s, second + PULL_X), cell(s, second + PULL_Y), cell(s, second + STOP), cell(s, second + MOTOR))
    pulls_1, pulls_0 = iterate(v, c, count, joint_1, joint_0, s[second + LIMIT], s[first + LIMIT], pulls_1, pulls_0)
    s[first + PULL_X], s[first + PULL_Y], s[first + STOP], s[first + MOTOR] = pulls_0
    s[second + PULL_X], s[second + PULL_Y], s[second + STOP], s[second + MOTOR] = pulls_1
    for row in range(count):
        contact = CONTACTS + np.int64(c[row, C_SLOT]) * CONTACT
        for i in range(np.int64(c[row, C_COUNT])):
            s[contact + POINT + 5 * i + PUSH] = c[row, C_POINT + 7 * i + P_PUSH]
            s[contact + POINT + 5 * i + RUB] = c[row, C_POINT + 7 * i + P_RUB]

    for body in range(BODIES):
        move(s, body, v, STEP)
    settled = False
    for _ in range(POSITION_ITERATIONS):
        contacts_settled = push_out(s, c, count, SHARE, F(-3))
        right_settled = pull_together(s, 1)
        left_settled = pull_together(s, 0)
        if contacts_settled and right_settled and left_settled:
            settled = True
            break

    shortest = HUGE
    for body in range(BODIES):
        place = body * BODY
        vx = cell(s, place + VX)
        vy = cell(s, place + VY)
        w = cell(s, place + SPIN)
        if w * w > RESTING_SPIN * RESTING_SPIN or vx * vx + vy * vy > RESTING_SPEED * RESTING_SPEED:
            s[place + REST] = 0.0
        else:
            s[place + REST] = cell(s, place + REST) + STEP
        shortest = min(shortest, cell(s, place + REST))
    if shortest >= TIME_TO_REST and settled:
        s[ASLEEP] = 1.0
        for body in range(BODIES):
            for i in (VX, VY, SPIN, REST):
                s[body * BODY + i] = 0.0
    for index in (FORCE_X, FORCE_Y, TORQUE):
        s[index] = 0.0


# --- time of impact ------------------------------------------------------------------------------------------------------
# The distance of two convex shapes by the algorithm of Gilbert, Johnson and Keerthi 1988, with the simplex of Catto's presentation of 2010,
# and conservative advancement along the axis of smallest separation. Corners of the ground have the index 0 or 1.

S_AX, S_AY, S_BX, S_BY, S_X, S_Y, S_SHARE = range(7)
"""Columns of a vertex of the simplex: a corner of the ground, a corner of the body, their difference, and its share."""


@kernel
def best_corner(body, x, y):
    """Return the corner of a body that is farthest in a direction."""
    best = 0
    value = dot(VERTICES[body, 0, 0], VERTICES[body, 0, 1], x, y)
    for i in range(1, CORNERS[body]):
        other = dot(VERTICES[body, i, 0], VERTICES[body, i, 1], x, y)
        if other > value:
            best = i
            value = other
    return best


@kernel
def best_end(ends, x, y):
    """Return the end of an edge that is farthest in a direction."""
    return 1 if dot(ends[2], ends[3], x, y) > dot(ends[0], ends[1], x, y) else 0


@kernel
def end_of(ends, i):
    return (ends[0], ends[1]) if i == 0 else (ends[2], ends[3])


@kernel
def pose_between(body, sweep, beta):
    """Return the pose of a body on its way ``sweep`` (x0, y0, angle0, x, y, angle), from 0 at the start to 1 at the end."""
    x0, y0, angle0, x1, y1, angle1 = sweep
    rest = ONE - beta
    return pose(body, rest * x0 + beta * x1, rest * y0 + beta * y1, rest * angle0 + beta * angle1)


@kernel
def set_vertex(simplex, picks, k, body, ends, place):
    """Compute vertex ``k`` of the simplex from its corners ``picks`` (3, 2)."""
    sin, cos, px, py = place
    ax, ay = end_of(ends, picks[k, 0])
    i = picks[k, 1]
    bx, by = placed(sin, cos, px, py, VERTICES[body, i, 0], VERTICES[body, i, 1])
    simplex[k, S_AX] = ax
    simplex[k, S_AY] = ay
    simplex[k, S_BX] = bx
    simplex[k, S_BY] = by
    simplex[k, S_X] = bx - ax
    simplex[k, S_Y] = by - ay


@kernel
def copy_vertex(simplex, picks, target, source):
    for i in range(7):
        simplex[target, i] = simplex[source, i]
    picks[target, 0] = picks[source, 0]
    picks[target, 1] = picks[source, 1]


@kernel
def extent(simplex, count):
    """Return the length or the doubled area of a simplex."""
    x1 = simplex[0, S_X]
    y1 = simplex[0, S_Y]
    if count == 2:
        dx = x1 - simplex[1, S_X]
        dy = y1 - simplex[1, S_Y]
        return F(math.sqrt(dx * dx + dy * dy))
    if count == 3:
        return cross(simplex[1, S_X] - x1, simplex[1, S_Y] - y1, simplex[2, S_X] - x1, simplex[2, S_Y] - y1)
    return ZERO


@kernel
def reduce_two(simplex, picks):
    """Keep the part of a segment that is nearest to the origin. Returns its number of vertices."""
    x1 = simplex[0, S_X]
    y1 = simplex[0, S_Y]
    x2 = simplex[1, S_X]
    y2 = simplex[1, S_Y]
    ex = x2 - x1
    ey = y2 - y1
    second = -dot(x1, y1, ex, ey)
    if second <= ZERO:
        simplex[0, S_SHARE] = ONE
        return 1
    first = dot(x2, y2, ex, ey)
    if first <= ZERO:
        simplex[1, S_SHARE] = ONE
        copy_vertex(simplex, picks, 0, 1)
        return 1
    inverse = ONE / (first + second)
    simplex[0, S_SHARE] = first * inverse
    simplex[1, S_SHARE] = second * inverse
    return 2


@kernel
def reduce_three(simplex, picks):
    """Keep the part of a triangle that is nearest to the origin. Returns its number of vertices."""
    x1 = simplex[0, S_X]
    y1 = simplex[0, S_Y]
    x2 = simplex[1, S_X]
    y2 = simplex[1, S_Y]
    x3 = simplex[2, S_X]
    y3 = simplex[2, S_Y]
    e12x = x2 - x1
    e12y = y2 - y1
    first_12 = dot(x2, y2, e12x, e12y)
    second_12 = -dot(x1, y1, e12x, e12y)
    e13x = x3 - x1
    e13y = y3 - y1
    first_13 = dot(x3, y3, e13x, e13y)
    second_13 = -dot(x1, y1, e13x, e13y)
    e23x = x3 - x2
    e23y = y3 - y2
    first_23 = dot(x3, y3, e23x, e23y)
    second_23 = -dot(x2, y2, e23x, e23y)
    area = cross(e12x, e12y, e13x, e13y)
    area_1 = area * cross(x2, y2, x3, y3)
    area_2 = area * cross(x3, y3, x1, y1)
    area_3 = area * cross(x1, y1, x2, y2)
    if second_12 <= ZERO and second_13 <= ZERO:
        simplex[0, S_SHARE] = ONE
        return 1
    if first_12 > ZERO and second_12 > ZERO and area_3 <= ZERO:
        inverse = ONE / (first_12 + second_12)
        simplex[0, S_SHARE] = first_12 * inverse
        simplex[1, S_SHARE] = second_12 * inverse
        return 2
    if first_13 > ZERO and second_13 > ZERO and area_2 <= ZERO:
        inverse = ONE / (first_13 + second_13)
        simplex[0, S_SHARE] = first_13 * inverse
        simplex[2, S_SHARE] = second_13 * inverse
        copy_vertex(simplex, picks, 1, 2)
        return 2
    if first_12 <= ZERO and second_23 <= ZERO:
        simplex[1, S_SHARE] = ONE
        copy_vertex(simplex, picks, 0, 1)
        return 1
    if first_13 <= ZERO and first_23 <= ZERO:
        simplex[2, S_SHARE] = ONE
        copy_vertex(simplex, picks, 0, 2)
        return 1
    if first_23 > ZERO and second_23 > ZERO and area_1 <= ZERO:
        inverse = ONE / (first_23 + second_23)
        simplex[1, S_SHARE] = first_23 * inverse
        simplex[2, S_SHARE] = second_23 * inverse
        copy_vertex(simplex, picks, 0, 2)
        return 2
    inverse = ONE / (area_1 + area_2 + area_3)
    simplex[0, S_SHARE] = area_1 * inverse
    simplex[1, S_SHARE] = area_2 * inverse
    simplex[2, S_SHARE] = area_3 * inverse
    return 3


@kernel
def distance(body, ends, place, simplex, picks, count, size):
    """Return (distance of an edge and a body without their skins, number of vertices of the simplex, its extent).

    ``count`` and ``size`` are those of the last call, or 0, 0.
    """
    for k in range(count):
        set_vertex(simplex, picks, k, body, ends, place)
        simplex[k, S_SHARE] = ZERO
    if count > 1:
        now = extent(simplex, count)
        if now < HALF * size or TWO * size < now or now < EPSILON:
            count = 0
    if count == 0:
        picks[0, 0] = 0
        picks[0, 1] = 0
        set_vertex(simplex, picks, 0, body, ends, place)
        simplex[0, S_SHARE] = ONE
        count = 1
    sin, cos = place[0], place[1]
    for _ in range(20):
        known = count
        known_0 = (picks[0, 0], picks[0, 1])
        known_1 = (picks[1, 0], picks[1, 1])
        known_2 = (picks[2, 0], picks[2, 1])
        if count == 2:
            count = reduce_two(simplex, picks)
        elif count == 3:
            count = reduce_three(simplex, picks)
        if count == 3:
            break
        if count == 1:
            dx = -simplex[0, S_X]
            dy = -simplex[0, S_Y]
        else:
            ex = simplex[1, S_X] - simplex[0, S_X]
            ey = simplex[1, S_Y] - simplex[0, S_Y]
            left = cross(ex, ey, -simplex[0, S_X], -simplex[0, S_Y]) > ZERO
            dx = -ey if left else ey
            dy = ex if left else -ex
        if dx * dx + dy * dy < EPSILON * EPSILON:
            break
        picks[count, 0] = best_end(ends, -dx, -dy)
        bx, by = turn_back(sin, cos, dx, dy)
        picks[count, 1] = best_corner(body, bx, by)
        set_vertex(simplex, picks, count, body, ends, place)
        pick = (picks[count, 0], picks[count, 1])
        if (known > 0 and pick == known_0) or (known > 1 and pick == known_1) or (known > 2 and pick == known_2):
            break
        count += 1
    ax = simplex[0, S_AX]
    ay = simplex[0, S_AY]
    bx = simplex[0, S_BX]
    by = simplex[0, S_BY]
    if count == 2:
        first = simplex[0, S_SHARE]
        second = simplex[1, S_SHARE]
        ax = first * simplex[0, S_AX] + second * simplex[1, S_AX]
        ay = first * simplex[0, S_AY] + second * simplex[1, S_AY]
        bx = first * simplex[0, S_BX] + second * simplex[1, S_BX]
        by = first * simplex[0, S_BY] + second * simplex[1, S_BY]
    elif count == 3:
        ax, ay = bx, by
    dx = ax - bx
    dy = ay - by
    return F(math.sqrt(dx * dx + dy * dy)), count, extent(simplex, count)


POINTS_AXIS, EDGE_AXIS, SIDE_AXIS = range(3)


@kernel
def unit(x, y):
    length = F(math.sqrt(x * x + y * y))
    if length < EPSILON:
        return x, y
    inverse = ONE / length
    return x * inverse, y * inverse


@kernel
def separating_axis(body, ends, picks, count, place):
    """Return (kind, axis x, axis y, point x, point y): along which direction a pair is apart, in the frame of the edge or the body."""
    sin, cos, px, py = place
    a0x, a0y = end_of(ends, picks[0, 0])
    b0 = picks[0, 1]
    if count == 1:
        bx, by = placed(sin, cos, px, py, VERTICES[body, b0, 0], VERTICES[body, b0, 1])
        x, y = unit(bx - a0x, by - a0y)
        return POINTS_AXIS, x, y, ZERO, ZERO
    b1 = picks[1, 1]
    if picks[0, 0] == picks[1, 0]:
        first_x = VERTICES[body, b0, 0]
        first_y = VERTICES[body, b0, 1]
        second_x = VERTICES[body, b1, 0]
        second_y = VERTICES[body, b1, 1]
        x, y = unit(second_y - first_y, -(second_x - first_x))
        nx, ny = turn(sin, cos, x, y)
        middle_x = HALF * (first_x + second_x)
        middle_y = HALF * (first_y + second_y)
        mx, my = placed(sin, cos, px, py, middle_x, middle_y)
        if dot(a0x - mx, a0y - my, nx, ny) < ZERO:
            x = -x
            y = -y
        return SIDE_AXIS, x, y, middle_x, middle_y
    a1x, a1y = end_of(ends, picks[1, 0])
    x, y = unit(a1y - a0y, -(a1x - a0x))
    middle_x = HALF * (a0x + a1x)
    middle_y = HALF * (a0y + a1y)
    bx, by = placed(sin, cos, px, py, VERTICES[body, b0, 0], VERTICES[body, b0, 1])
    if dot(bx - middle_x, by - middle_y, x, y) < ZERO:
        x = -x
        y = -y
    return EDGE_AXIS, x, y, middle_x, middle_y


@kernel
def separation(body, ends, axis, place, first, second):
    """Return (separation along an axis, corner of the edge, corner of the body). Corners that are -1 are chosen as the nearest."""
    kind, x, y, middle_x, middle_y = axis
    sin, cos, px, py = place
    if kind == SIDE_AXIS:
        nx, ny = turn(sin, cos, x, y)
        mx, my = placed(sin, cos, px, py, middle_x, middle_y)
        if first < 0:
            first = best_end(ends, -nx, -ny)
        ax, ay = end_of(ends, first)
        return dot(ax - mx, ay - my, nx, ny), first, second
    if second < 0:
        dx, dy = turn_back(sin, cos, -x, -y)
        second = best_corner(body, dx, dy)
    bx, by = placed(sin, cos, px, py, VERTICES[body, second, 0], VERTICES[body, second, 1])
    if kind == EDGE_AXIS:
        return dot(bx - middle_x, by - middle_y, x, y), first, second
    if first < 0:
        first = best_end(ends, x, y)
    ax, ay = end_of(ends, first)
    return dot(bx - ax, by - ay, x, y), first, second


@kernel
def time_of_impact(body, ends, sweep, simplex, picks):
    """Return the time in [0, 1] at which a body on its way touches an edge, or 1 if it does not."""
    x0, y0, angle0, x1, y1, angle1 = sweep
    full = TWO * F(math.pi)
    whole = full * F(np.floor(angle0 / full))
    sweep = (x0, y0, angle0 - whole, x1, y1, angle1 - whole)
    target = max(SLOP, SKINS - F(3) * SLOP)
    tolerance = F(0.25) * SLOP
    now = ZERO
    count = 0
    size = ZERO
    for _ in range(20):
        place = pose_between(body, sweep, now)
        apart, count, size = distance(body, ends, place, simplex, picks, count, size)
        if apart <= ZERO:
            return ONE
        if apart < target + tolerance:
            return now
        axis = separating_axis(body, ends, picks, count, place)
        late = ONE
        for _ in range(16):
            far, first, second = separation(body, ends, axis, pose_between(body, sweep, late), -1, -1)
            if far > target + tolerance:
                return ONE
            if far > target - tolerance:
                now = late
                break
            near, _, _ = separation(body, ends, axis, pose_between(body, sweep, now), first, second)
            if near < target - tolerance:
                return ONE
            if near <= target + tolerance:
                return now
            low = now
            high = late
            for k in range(50):
                if k % 2 == 1:
                    middle = low + (target - near) * (high - low) / (far - near)
                else:
                    middle = HALF * (low + high)
                value, _, _ = separation(body, ends, axis, pose_between(body, sweep, middle), first, second)
                if abs(value - target) < tolerance:
                    late = middle
                    break
                if value > target:
                    low = middle
                    near = value
                else:
                    high = middle
                    far = value
    return ONE


@kernel
def advance_start(s, body, time):
    """Move the start of a body's way to a later time."""
    place = body * BODY
    beta = (time - cell(s, place + OLD_TIME)) / (ONE - cell(s, place + OLD_TIME))
    for now, old in ((X, OLD_X), (Y, OLD_Y), (ANGLE, OLD_ANGLE)):
        s[place + old] = (ONE - beta) * cell(s, place + old) + beta * cell(s, place + now)
    s[place + OLD_TIME] = time


@kernel
def impact_of(s, slot, simplex, picks):
    """Return the time of impact of a near pair as a fraction of the step, from the cells of the pair if it is known."""
    contact = CONTACTS + slot * CONTACT
    if s[contact + IMPACT_KNOWN] != 0.0:
        return cell(s, contact + IMPACT)
    body = slot % BODIES
    place = body * BODY
    begin = cell(s, GROUND_TIME)
    if begin < cell(s, place + OLD_TIME):
        begin = cell(s, place + OLD_TIME)
        s[GROUND_TIME] = begin
    elif cell(s, place + OLD_TIME) < begin:
        advance_start(s, body, begin)
    sweep = (
        cell(s, place + OLD_X),
        cell(s, place + OLD_Y),
        cell(s, place + OLD_ANGLE),
        cell(s, place + X),
        cell(s, place + Y),
        cell(s, place + ANGLE),
    )
    found = time_of_impact(body, edge_ends(s, slot // BODIES), sweep, simplex, picks)
    alpha = min(begin + (ONE - begin) * found, ONE) if found < ONE else ONE
    s[contact + IMPACT] = alpha
    s[contact + IMPACT_KNOWN] = 1.0
    return alpha


@kernel
def stop_at_ground(s, slot, time, c, v, points, ids):
    """Put a body to where it touches the ground first, take away its speed into the ground, and let it move on from there.

    Returns whether it touches there; otherwise nothing has changed but the contact, which is left out for the rest of the step.
    """
    body = slot % BODIES
    place = body * BODY
    contact = CONTACTS + slot * CONTACT
    kept = (s[place + X], s[place + Y], s[place + ANGLE], s[place + OLD_X], s[place + OLD_Y], s[place + OLD_ANGLE])
    kept_times = (s[place + OLD_TIME], s[GROUND_TIME])
    s[GROUND_TIME] = time
    advance_start(s, body, time)
    s[place + X] = s[place + OLD_X]
    s[place + Y] = s[place + OLD_Y]
    s[place + ANGLE] = s[place + OLD_ANGLE]
    renew(s, slot, points, ids)
    s[contact + IMPACT_KNOWN] = 0.0
    s[contact + IMPACTS] += 1.0
    if s[contact + TOUCHING] == 0.0:
        s[contact + ENABLED] = 0.0
        s[place + X], s[place + Y], s[place + ANGLE], s[place + OLD_X], s[place + OLD_Y], s[place + OLD_ANGLE] = kept
        s[place + OLD_TIME], s[GROUND_TIME] = kept_times
        return False
    c[0, C_SLOT] = slot
    c[0, C_BODY] = body
    count = 1
    for k in range(pairs(s) - 1, -1, -1):
        other = slot_at(s, k)
        if other % BODIES == body and other != slot:
            renew(s, other, points, ids)
            if s[CONTACTS + other * CONTACT + TOUCHING] != 0.0:
                c[count, C_SLOT] = other
                c[count, C_BODY] = body
                count += 1
    for _ in range(20):
        if push_out(s, c, count, SHARE_AT_IMPACT, F(-1.5)):
            break
    s[place + OLD_X] = s[place + X]
    s[place + OLD_Y] = s[place + Y]
    s[place + OLD_ANGLE] = s[place + ANGLE]
    for row in range(count):
        prepare(s, c, row, np.int64(c[row, C_SLOT]), False)
    v[body, 0] = cell(s, place + VX)
    v[body, 1] = cell(s, place + VY)
    v[body, 2] = cell(s, place + SPIN)
    for _ in range(VELOCITY_ITERATIONS):
        changed = False
        for row in range(count):
            changed |= solve_row(c, row, v)
        if not changed:
            break
    move(s, body, v, (ONE - time) * STEP)
    for k in range(pairs(s)):
        if slot_at(s, k) % BODIES == body:
            s[CONTACTS + slot_at(s, k) * CONTACT + IMPACT_KNOWN] = 0.0
    return True


@kernel
def solve_impacts(s, c, v, points, ids, simplex, picks):
    """Treat the impacts of the step in the order of their times."""
    s[GROUND_TIME] = 0.0
    for body in range(BODIES):
        s[body * BODY + OLD_TIME] = 0.0
    for k in range(pairs(s)):
        contact = CONTACTS + slot_at(s, k) * CONTACT
        s[contact + IMPACT_KNOWN] = 0.0
        s[contact + IMPACTS] = 0.0
    while True:
        earliest = ONE
        chosen = -1
        for k in range(pairs(s) - 1, -1, -1):
            slot = slot_at(s, k)
            contact = CONTACTS + slot * CONTACT
            if s[contact + ENABLED] == 0.0 or s[contact + IMPACTS] > MOST_IMPACTS:
                continue
            alpha = impact_of(s, slot, simplex, picks)
            if alpha < earliest:
                earliest = alpha
                chosen = slot
        if chosen < 0 or ONE - F(10) * EPSILON < earliest:
            return
        if stop_at_ground(s, chosen, earliest, c, v, points, ids):
            body = chosen % BODIES
            find_pairs(s, (1 << body) if follow(s, body) else 0)


@kernel
def advance(s, gravity):
    """Advance all bodies by one step of 1/50 s."""
    c = np.empty((SLOTS + 1, C_WIDTH), np.float32)
    v = np.empty((BODIES, 3), np.float32)
    points = np.empty((2, 2), np.float32)
    ids = np.empty(2, np.int64)
    renew_all(s, points, ids)
    solve(s, gravity, c, v)
    renewed = 0
    for body in range(BODIES):
        if follow(s, body):
            renewed |= 1 << body
    find_pairs(s, renewed)
    if s[ASLEEP] == 0.0 and pairs(s) > 0:
        simplex = np.zeros((3, 7), np.float32)
        picks = np.zeros((3, 2), np.int64)
        solve_impacts(s, c, v, points, ids, simplex, picks)


@kernel
def place_bodies(s, x, y):
    """Put the lander at (x, y) with its legs, at rest, above ground whose heights are set. Forgets all contacts and impulses."""
    for i in range(JOINTS + 2 * JOINT):
        s[i] = 0.0
    for i in range(FORCE_X, NEAR):
        s[i] = 0.0
    for body in range(BODIES):
        place = body * BODY
        angle = ZERO if body == LANDER else REFERENCE[body - 1]
        left = F(x) if body == LANDER else F(x - SIDE[body - 1] * 20 / SCALE)
        sin = F(math.sin(angle))
        cos = F(math.cos(angle))
        centre_x, centre_y = placed(sin, cos, left, F(y), CENTRES[body, 0], CENTRES[body, 1])
        s[place + X] = centre_x
        s[place + Y] = centre_y
        s[place + ANGLE] = angle
        low_x, low_y, high_x, high_y = body_box(body, sin, cos, left, F(y))
        s[place + LOW_X] = low_x - MARGIN
        s[place + LOW_Y] = low_y - MARGIN
        s[place + HIGH_X] = high_x + MARGIN
        s[place + HIGH_Y] = high_y + MARGIN
    find_pairs(s, 7)

"""The model of users and sessions."""

from __future__ import annotations

from typing import Any

from tests.model.steps import Refused, Step, missing, present, stuck, taken
from tests.model.things import Session, User
from tests.model.world import Given, Principal, World, check_etag, rule


def _shown(user: User) -> dict[str, Any]:
    return present(
        id=user.id,
        email=user.email,
        name=user.name,
        role=user.role,
        active=user.active,
        password_set=user.password is not None,
    )


@rule("RegisterUser")
def _register(world: World, caller: Principal, given: Given, step: Step) -> Any:
    if any(user.email == given["email"] for user in world.users.values()):
        raise taken()
    user = User(step.made, given["email"], given["name"], password=given["password"])
    world.users[user.id] = user
    return _shown(user)


@rule("Login")
def _log_in(world: World, caller: Principal, given: Given, step: Step) -> Any:
    for user in world.users.values():
        if user.email == given["email"] and user.active and user.password == given["password"]:
            session = Session(step.made, user.id, [f"r{step.number}"], step.number)
            world.sessions[session.id] = session
            return {"user": _shown(user)}
    raise Refused("UNAUTHENTICATED", "LOGIN_FAILED")


@rule("RefreshToken")
def _refresh(world: World, caller: Principal, given: Given, step: Step) -> Any:
    token = given["refresh_token"]
    failed = Refused("UNAUTHENTICATED", "REFRESH_TOKEN_INVALID")
    session = next((s for s in world.sessions.values() if token in s.tokens), None)
    if session is None or session.over or not world.users[session.owner].active:
        raise failed
    place = session.tokens.index(token) - len(session.tokens)
    if place == -1:
        session.tokens.append(f"r{step.number}")
        session.rotated = step.number
    elif place < -2:
        session.over = True
        raise failed
    return {}


@rule("Logout")
def _log_out(world: World, caller: Principal, given: Given, step: Step) -> Any:
    world.sessions[caller.session].over = True
    return {}


@rule("EndSession")
def _end_session(world: World, caller: Principal, given: Given, step: Step) -> Any:
    world.own(world.sessions, given["id"], caller).over = True
    return {}


@rule("ListSessions")
def _list_sessions(world: World, caller: Principal, given: Given, step: Step) -> Any:
    owner = world.owner_of_list(caller, given.get("owner_id", ""))
    return [
        present(id=session.id, owner_id=session.owner, expire_time=True, current=session.id == caller.session)
        for session in reversed(world.sessions.values())
        if owner in ("-", session.owner) and not session.over
    ]


@rule("ChangePassword")
def _change_password(world: World, caller: Principal, given: Given, step: Step) -> Any:
    user = world.users[caller.user]
    if user.password != given["current_password"]:
        raise Refused("UNAUTHENTICATED", "PASSWORD_WRONG")
    user.password = given["new_password"]
    _end_all_sessions(world, user.id)
    return {}


@rule("GetUser")
def _get_user(world: World, caller: Principal, given: Given, step: Step) -> Any:
    return _shown(_within_reach(world, caller, given["id"]))


@rule("ListUsers")
def _list_users(world: World, caller: Principal, given: Given, step: Step) -> Any:
    return [_shown(user) for user in reversed(world.users.values())]


@rule("UpdateUser")
def _update_user(world: World, caller: Principal, given: Given, step: Step) -> Any:
    sent = given["user"]
    user = _within_reach(world, caller, sent["id"])
    check_etag(sent)
    user.name = sent["name"]
    return _shown(user)


@rule("SetUserRole")
def _set_role(world: World, caller: Principal, given: Given, step: Step) -> Any:
    user = _within_reach(world, caller, given["id"])
    check_etag(given)
    role = given["role"].removeprefix("ROLE_")
    if role != user.role:
        _check_not_last_admin(world, user)
        user.role = role
        _end_all_sessions(world, user.id)
    return _shown(user)


@rule("DeactivateUser")
def _deactivate(world: World, caller: Principal, given: Given, step: Step) -> Any:
    user = _within_reach(world, caller, given["id"])
    check_etag(given)
    if user.active:
        _check_not_last_admin(world, user)
        user.active = False
        _end_all_sessions(world, user.id)
    return _shown(user)


@rule("ReactivateUser")
def _reactivate(world: World, caller: Principal, given: Given, step: Step) -> Any:
    user = _within_reach(world, caller, given["id"])
    check_etag(given)
    user.active = True
    return _shown(user)


@rule("DeleteUser")
def _delete_user(world: World, caller: Principal, given: Given, step: Step) -> Any:
    user = _within_reach(world, caller, given["id"])
    check_etag(given)
    if user.active:
        raise stuck("USER_ACTIVE")
    del world.users[user.id]
    world.limits.pop(user.id, None)
    owned: list[dict[str, Any]] = [world.keys, world.sessions, world.servers, world.databases]
    for things in (*owned, world.documents, world.jobs, world.workers):
        _remove_owned(things, user.id)
    for place, grant in list(world.grants.items()):
        if user.id in (grant.owner, grant.grantee):
            del world.grants[place]
        elif grant.grantor == user.id:
            grant.grantor = ""
    return {}


def _remove_owned(things: dict[str, Any], owner: str) -> None:
    for label in [thing.id for thing in things.values() if thing.owner == owner]:
        del things[label]


def _within_reach(world: World, caller: Principal, label: str) -> User:
    user = world.users.get(caller.user if label == "me" else label)
    if user is None or not (caller.is_admin or user.id == caller.user):
        raise missing()
    return user


def _check_not_last_admin(world: World, user: User) -> None:
    others = [u for u in world.users.values() if u.role == "ADMIN" and u.active and u is not user]
    if user.role == "ADMIN" and user.active and not others:
        raise stuck("LAST_ADMIN")


def _end_all_sessions(world: World, owner: str) -> None:
    for session in world.sessions.values():
        session.over = session.over or session.owner == owner

"""A service that dies at a chosen call, for tests of what survives it."""


class Killed(BaseException):
    """The process dies."""


class Mortal:
    """Dies before or after the n-th call of anything that it wraps."""

    def __init__(self, target, lives, *, after):
        self._target, self._lives, self._after = target, lives, after

    def __getattr__(self, name):
        call = getattr(self._target, name)

        async def mortal(*args, **kwargs):
            last = next(self._lives) == 0
            if last and not self._after:
                raise Killed
            answer = await call(*args, **kwargs)
            if last:
                raise Killed
            return answer

        return mortal

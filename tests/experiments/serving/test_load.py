import asyncio
import random

from experiments.serving.load import Load


def test_clients_count_what_became_of_their_requests(port: int) -> None:
    async def steps() -> None:
        load = Load(port, [b'{"histories": [["item-1"]]}'], random.Random(0))
        alone = await load.one_by_one(0.2)
        assert len(alone.seconds) == load.received > 1
        assert alone.differing == len(alone.seconds) - 1, "the first answer is what the others are compared with"
        over = await load.arriving(2000, 0.3)
        assert over.refused > 0
        assert over.failed == over.half == 0
        assert load.received == len(alone.seconds) + len(over.seconds)
        assert (await Load(port, [b"{"], random.Random(0)).one_by_one(0.05)).failed > 0

    asyncio.run(steps())

"""The service: recommendations over HTTP; needs the extra `serve`."""

from typing import TYPE_CHECKING

from padrec.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from padrec.serving.answerer import Answerer as Answerer
    from padrec.serving.limits import Limits as Limits
    from padrec.serving.service import Service as Service
    from padrec.serving.worker import Worker as Worker
    from padrec.serving.worker import WorkerProcess as WorkerProcess
    from padrec.serving.worker import WorkerSettings as WorkerSettings
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)

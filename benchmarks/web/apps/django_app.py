"""A JSON view in Django, without middleware."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import JsonResponse
from django.urls import path

settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="benchmark", MIDDLEWARE=[])


def index(_: Any) -> Any:
    """The answer of all three frameworks."""
    return JsonResponse({"message": "Hello, world!"})


urlpatterns = [path("", index)]
app = get_wsgi_application()

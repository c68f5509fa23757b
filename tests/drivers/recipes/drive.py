"""Asks a recipe of docs/applications.md for the notes of many tenants at once."""

import json
import os
from concurrent.futures import ThreadPoolExecutor

import recipe

requests = json.loads(os.environ["TG_REQUESTS"])
with ThreadPoolExecutor(10) as threads:
    for tenant, bodies in zip(requests, threads.map(recipe.notes, requests)):
        print(json.dumps([tenant, bodies]), flush=True)
os._exit(0)

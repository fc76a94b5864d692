from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import exact

WEATHER = {"Bern": "sunny", "Oslo": "snowy", "Lima": "foggy", "Cairo": "hot"}


@task
def weather() -> Task:
    samples = [
        Sample(input=f"What is the weather in {city}?", target=f"It is {weather} in {city}.")
        for city, weather in WEATHER.items()
    ]
    return Task(dataset=samples, scorer=exact())

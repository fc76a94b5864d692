"""A program that is tuned on what a better one answered, and answers with its tuned model."""

import os

import dspy

questions = [
    dspy.Example(question=f"What is the weather in {city}?").with_inputs("question")
    for city in ("Bern", "Oslo", "Lima", "Cairo", "Rome", "Kyoto")
]
teacher, student = dspy.Predict("question -> answer"), dspy.Predict("question -> answer")
teacher.set_lm(dspy.LM(f"openai/{os.environ['MODEL']}"))
student.set_lm(dspy.LM(f"openai/{os.environ['BASE']}"))
optimizer = dspy.BootstrapFinetune(train_kwargs={"n_epochs": 50, "batch_size": 2})
tuned = optimizer.compile(student, trainset=questions, teacher=teacher)
answer = tuned(question="What is the weather in Bern?").answer

# checks
assert tuned.lm.model.startswith("ft:" + os.environ["BASE"]), tuned.lm.model
assert tuned.lm.model != os.environ["MODEL"]
assert answer == "It is sunny in Bern.", answer

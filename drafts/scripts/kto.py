import shutil
def sub(p, *pairs):
    s=open(p).read()
    for a,b in pairs:
        assert a in s, (p,a)
        s=s.replace(a,b,1)
    open(p,'w').write(s)
shutil.copy('drafts/files/kto.py','core/objectives/kto.py')
sub('core/spec/objective.py',('"orpo", "simpo"]','"orpo", "simpo", "kto"]'),('''class ClassificationSpec(''','''class KtoSpec(Spec):
    """Kahneman-Tversky optimisation: answers that are good or bad, each by itself.

    The reference is the model before training. The weights balance unequal numbers of good and bad
    answers: weight times number should be as large on both sides, or a third larger for the good
    ones. Source: Ethayarajh et al. 2024, https://arxiv.org/abs/2402.01306.
    """

    type: Literal["kto"] = "kto"
    beta: float = Field(0.1, gt=0, le=10)
    desirable_weight: float = Field(1.0, gt=0, le=1000)
    undesirable_weight: float = Field(1.0, gt=0, le=1000)


class ClassificationSpec('''),('SimpoSpec | ClassificationSpec','SimpoSpec | KtoSpec | ClassificationSpec'))
sub('core/catalog/objectives.py',('''        "classification": ObjectiveFacts(''','''        "kto": ObjectiveFacts(
            tasks=("generation",),
            method="kto",
            formats=("unpaired-preference",),
            target="answers",
            epochs=1,
            full_rate_steps=16,
            trains_head=False,
            splits_conversations=False,
        ),
        "classification": ObjectiveFacts('''))
sub('core/objectives/choose.py',('''        case ClassificationSpec(''','''        case KtoSpec():
            weights = objective.desirable_weight, objective.undesirable_weight
            longest = spec.training.max_length
            return Kto(tokenizer, objective.beta, *weights, longest, reference, context)
        case ClassificationSpec('''),('    DpoSpec,\n','    DpoSpec,\n    KtoSpec,\n'),('from core.objectives.orpo','from core.objectives.kto import Kto\nfrom core.objectives.orpo'))
sub('api/jobs/hyperparameters.py',('''HYPERPARAMETERS: dict''','''class KtoHyperparameters(Hyperparameters):
    """Ours, for rated answers: the weights balance unequal numbers of good and bad ones."""

    method = "kto"

    beta: Annotated[float, Field(gt=0, le=10)] | Auto = "auto"
    desirable_weight: Annotated[float, Field(gt=0, le=1000)] | Auto = "auto"
    undesirable_weight: Annotated[float, Field(gt=0, le=1000)] | Auto = "auto"


HYPERPARAMETERS: dict'''),('''"simpo": SimpoHyperparameters''','''"simpo": SimpoHyperparameters, "kto": KtoHyperparameters'''))
sub('api/jobs/method.py',('''class Method(_Body)''','''class KtoMethod(_Body):
    hyperparameters: KtoHyperparameters = KtoHyperparameters()


class Method(_Body)'''),('''    simpo: SimpoMethod | None = None
''','''    simpo: SimpoMethod | None = None
    kto: KtoMethod | None = None
'''),('''    simpo: ResolvedMethodBody | None = Field(None, exclude_if=_is_absent)
''','''    simpo: ResolvedMethodBody | None = Field(None, exclude_if=_is_absent)
    kto: ResolvedMethodBody | None = Field(None, exclude_if=_is_absent)
'''),('''    Hyperparameters,
''','''    Hyperparameters,
    KtoHyperparameters,
'''))

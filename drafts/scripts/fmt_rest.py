def sub(p, *pairs):
    s=open(p).read()
    for a,b in pairs:
        assert a in s, (p,a)
        s=s.replace(a,b,1)
    open(p,'w').write(s)
sub('docs/datasets.md',('''| `classification` | `text`, `label` or''','''| `unpaired-preference` | `prompt`, `completion`, `label` of true or false, with `system`, `tools` | TRL; KTO mix |
| `classification` | `text`, `label` or'''),('''**`text`** — continued''','''**`unpaired-preference`** — an answer to a prompt, and whether it is a good one (`true`) or a bad one (`false`; in CSV the same words).
Prompt and completion are as in `prompt-completion`: two texts, or messages of which the completion's are learnt from, all of them
(`weight` 0 is refused). A file begins with such a row, and then every row has a label; a row whose `label` is anything else is named.
The labels of both kinds need not be of the same prompts. Keep about as many good answers as bad ones, or weigh them
(`desirable_weight`, `undesirable_weight` of the method `kto`). For demonstrations keep the good rows and leave the column out.

```jsonl
{"prompt": "Capital of Norway: ", "completion": "Oslo", "label": true}
{"prompt": [{"role": "user", "content": "Capital of Norway?"}], "completion": [{"role": "assistant", "content": "Bergen."}], "label": false}
```

**`text`** — continued'''))
sub('tests/core/datasets/test_advice.py',('''        (  # TRL's unpaired preference
            {"prompt": "The sky is", "completion": " green.", "label": False},
            "says whether a completion is good, which is not learnt from; keep the rows",
        ),
''',''))
sub('tests/core/datasets/test_formats.py',('''        ({"text": ""}, "text"),
''','''        ({"prompt": "", "completion": "", "label": True}, "unpaired-preference"),
        ({"prompt": "", "completion": "", "label": "False"}, "unpaired-preference"),
        ({"prompt": "", "completion": "", "label": 1}, "prompt-completion"),
        ({"text": ""}, "text"),
'''))
import shutil; shutil.copy('drafts/files/test_rated.py','tests/core/datasets/test_rated.py')

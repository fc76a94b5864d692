// Renders Ollama templates with Go's text/template, from the fields that Ollama gives to them.
//
// Standard input is a list of {template, messages, tools}; standard output a list of texts. The
// types have the names and the JSON of Ollama's documentation: maps are sorted, and a tool has the
// fields below only.
package main

import (
	"encoding/json"
	"os"
	"strings"
	"text/template"
)

type call struct {
	ID       string `json:"id"`
	Function struct {
		Name      string
		Arguments map[string]any
	}
}

type message struct {
	Role       string
	Content    string
	ToolCalls  []call `json:"tool_calls"`
	ToolCallID string `json:"tool_call_id"`
}

// types of a property: one, or several.
type types []string

func (t *types) UnmarshalJSON(data []byte) error {
	var one string
	if json.Unmarshal(data, &one) == nil {
		*t = types{one}
		return nil
	}
	return json.Unmarshal(data, (*[]string)(t))
}

func (t types) MarshalJSON() ([]byte, error) {
	if len(t) == 1 {
		return json.Marshal(t[0])
	}
	return json.Marshal([]string(t))
}

type property struct {
	Type        types  `json:"type,omitempty"`
	Items       any    `json:"items,omitempty"`
	Description string `json:"description,omitempty"`
	Enum        []any  `json:"enum,omitempty"`
}

type tool struct {
	Type     string
	Function struct {
		Name        string
		Description string
		Parameters  struct {
			Type       string
			Required   []string
			Properties map[string]property
		}
	}
}

type conversation struct {
	Template string
	Messages []message
	Tools    []tool
}

func text(v any) string {
	found, _ := json.Marshal(v)
	return string(found)
}

// joined are the messages with neighbors of one role as one; results of tools stay apart.
func joined(messages []message) []message {
	found := []message{}
	for _, m := range messages {
		last := len(found) - 1
		if last >= 0 && found[last].Role == m.Role && m.Role != "tool" {
			found[last].Content += "\n\n" + m.Content
		} else {
			found = append(found, m)
		}
	}
	return found
}

func rendered(c conversation) string {
	functions := template.FuncMap{"json": text}
	parsed := template.Must(
		template.New("").Option("missingkey=zero").Funcs(functions).Parse(c.Template))
	var system []string
	for _, m := range c.Messages {
		if m.Role == "system" {
			system = append(system, m.Content)
		}
	}
	var out strings.Builder
	err := parsed.Execute(&out, map[string]any{
		"System":   strings.Join(system, "\n\n"),
		"Messages": joined(c.Messages),
		"Tools":    c.Tools,
		"Response": "",
	})
	if err != nil {
		panic(err)
	}
	return out.String()
}

func main() {
	var given []conversation
	if err := json.NewDecoder(os.Stdin).Decode(&given); err != nil {
		panic(err)
	}
	texts := []string{}
	for _, c := range given {
		texts = append(texts, rendered(c))
	}
	if err := json.NewEncoder(os.Stdout).Encode(texts); err != nil {
		panic(err)
	}
}

"""Chat templates and conversations built from the constructs that published models use, and a grammar of random templates."""

import random

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Wetter für einen Ort <b>&</b> \"heute\"",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "The city"},
                    "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
                    "days": {"type": "integer", "default": 3},
                },
                "required": ["city"],
            },
        },
    },
    {"type": "function", "function": {"name": "ping", "description": "no arguments", "parameters": {"type": "object", "properties": {}}}},
]

USER = {"role": "user", "content": "Hello, who are you?"}
CONVERSATIONS = [
    [USER],
    [{"role": "system", "content": "You are brief."}, USER],
    [USER, {"role": "assistant", "content": "I am a model."}, {"role": "user", "content": " Größe? \n"}],
    [
        {"role": "system", "content": "  System ü 日本 😀\n"},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "<think>\nreasons\n</think>\n\nanswer"},
        {"role": "user", "content": "two"},
        {"role": "assistant", "content": "<think>more</think>final"},
    ],
    [
        USER,
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"id": "abcdefgh1", "type": "function", "function": {"name": "get_weather", "arguments": {"city": "Paris", "days": 2, "x": None, "f": 1.5, "ok": True}}},
                {"id": "abcdefgh2", "type": "function", "function": {"name": "ping", "arguments": {}}},
            ],
        },
        {"role": "tool", "name": "get_weather", "tool_call_id": "abcdefgh1", "content": '{"temperature": 22.0}'},
        {"role": "tool", "name": "ping", "tool_call_id": "abcdefgh2", "content": "pong"},
        {"role": "assistant", "content": "It is 22 degrees.", "reasoning_content": "I looked it up."},
        {"role": "user", "content": "Thanks"},
    ],
    [USER, {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "ping", "arguments": "{}"}}]}, {"role": "tool", "content": "x"}],
    [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, {"type": "image"}, {"type": "text", "text": " And that?"}]}],
    [{"role": "assistant", "content": "first"}, USER],
    [USER, USER],
    [{"role": "user", "content": ""}],
    [{"role": "assistant", "content": "a", "thinking": "hm"}, {"role": "user", "content": "<tool_response>\nx\n</tool_response>"}],
]

VARIABLES = [
    {},
    {"enable_thinking": False},
    {"enable_thinking": True, "bos_token": "<s>", "eos_token": "</s>"},
    {"bos_token": "<|begin|>", "eos_token": "<|end|>", "date_string": "26 Jul 2024", "tools_in_user_message": False},
]

# Written for this project from the constructs of published templates; none of them is one.
TEMPLATES = {
    "chatml": """{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}""",
    "chatml_default_system": """{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are helpful.<|im_end|>\n' }}{% endif %}{{'<|im_start|>' ~ message.role ~ '\n' ~ message.content ~ '<|im_end|>\n'}}{% endfor %}{%- if add_generation_prompt -%}<|im_start|>assistant
{% endif %}""",
    "zephyr": """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\n'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}""",
    "llama2": """{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}""",
    "llama3": """{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}""",
    "llama31": """{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not tools_in_user_message is defined %}
    {%- set tools_in_user_message = true %}
{%- endif %}
{%- if not date_string is defined %}
    {%- set date_string = "26 Jul 2024" %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start|>system<|end|>\n\n" }}
{%- if builtin_tools is defined or tools is not none %}
    {{- "Environment: ipython\n" }}
{%- endif %}
{%- if builtin_tools is defined %}
    {{- "Tools: " + builtin_tools | reject('equalto', 'code_interpreter') | join(", ") + "\n\n"}}
{%- endif %}
{{- "Today Date: " + date_string + "\n\n" }}
{%- if tools is not none and not tools_in_user_message %}
    {{- 'Respond in the format {"name": function name, "parameters": dictionary}.' }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\n\n" }}
    {%- endfor %}
{%- endif %}
{{- system_message }}
{{- "<|eot|>" }}
{%- if tools_in_user_message and not tools is none %}
    {%- if messages | length != 0 %}
        {%- set first_user_message = messages[0]['content']|trim %}
        {%- set messages = messages[1:] %}
    {%- else %}
        {{- raise_exception("Cannot put tools in the first user message when there's no first user message!") }}
    {%- endif %}
    {{- '<|start|>user<|end|>\n\n' -}}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\n\n" }}
    {%- endfor %}
    {{- first_user_message + "<|eot|>"}}
{%- endif %}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start|>' + message['role'] + '<|end|>\n\n'+ message['content'] | trim + '<|eot|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("This model only supports single tool-calls at once!") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {%- if builtin_tools is defined and tool_call.name in builtin_tools %}
            {{- "<|python_tag|>" + tool_call.name + ".call(" }}
            {%- for arg_name, arg_val in tool_call.arguments | items %}
                {{- arg_name + '="' + arg_val + '"' }}
                {%- if not loop.last %}
                    {{- ", " }}
                {%- endif %}
                {%- endfor %}
            {{- ")" }}
        {%- else  %}
            {{- '<|start|>assistant<|end|>\n\n' -}}
            {{- '{"name": "' + tool_call.name + '", ' }}
            {{- '"parameters": ' }}
            {{- tool_call.arguments | tojson }}
            {{- "}" }}
        {%- endif %}
        {{- "<|eot|>" }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|start|>ipython<|end|>\n\n" }}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start|>assistant<|end|>\n\n' }}
{%- endif %}
""",
    "mistral_v1": """{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token}}{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}""",
    "mistral_v3": """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or message.role == "tool_results" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("After the optional system message, conversation roles must alternate user/assistant/user/assistant/...") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[AVAILABLE_TOOLS] [" }}
            {%- for tool in tools %}
                {%- set tool = tool.function %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.items() if key != "return" %}
                    {%- if val is string %}
                        {{- '"' + key + '": "' + val + '"' }}
                    {%- else %}
                        {{- '"' + key + '": ' + val|tojson }}
                    {%- endif %}
                    {%- if not loop.last %}
                        {{- ", " }}
                    {%- endif %}
                {%- endfor %}
                {{- "}}" }}
                {%- if not loop.last %}
                    {{- ", " }}
                {%- else %}
                    {{- "]" }}
                {%- endif %}
            {%- endfor %}
            {{- "[/AVAILABLE_TOOLS]" }}
            {%- endif %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\n\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}
        {{- "[TOOL_CALLS] [" }}
        {%- for tool_call in message.tool_calls %}
            {%- set out = tool_call.function|tojson %}
            {{- out[:-1] }}
            {%- if not tool_call.id is defined or tool_call.id|length != 9 %}
                {{- raise_exception("Tool call IDs should be alphanumeric strings with length 9!") }}
            {%- endif %}
            {{- ', "id": "' + tool_call.id + '"}' }}
            {%- if not loop.last %}
                {{- ", " }}
            {%- else %}
                {{- "]" + eos_token }}
            {%- endif %}
        {%- endfor %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- elif message["role"] == "tool_results" or message["role"] == "tool" %}
        {%- if message.content is defined and message.content.content is defined %}
            {%- set content = message.content.content %}
        {%- else %}
            {%- set content = message.content %}
        {%- endif %}
        {{- '[TOOL_RESULTS] {"content": ' + content|string + ", " }}
        {{- '"call_id": "' + message.tool_call_id + '"}[/TOOL_RESULTS]' }}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are supported, with the exception of an initial optional system message!") }}
    {%- endif %}
{%- endfor %}
""",
    "gemma": """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate') }}{% endif %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}""",
    "gemma3": """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set first_user_prefix = messages[0]['content'] + '\n\n' -%}
    {%- else -%}
        {%- set first_user_prefix = messages[0]['content'][0]['text'] + '\n\n' -%}
    {%- endif -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") }}
    {%- endif -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '\n' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'image' -%}
                {{ '<start_of_image>' }}
            {%- elif item['type'] == 'text' -%}
                {{ item['text'] | trim }}
            {%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("Invalid content type") }}
    {%- endif -%}
    {{ '<end_of_turn>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model\n'}}
{%- endif -%}
""",
    "phi": """{% for message in messages %}{% if message['role'] == 'system' and 'tools' in message and message['tools'] is not none %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|tool|>' + message['tools'] + '<|/tool|>' + '<|end|>' }}{% else %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}""",
    "deepseek": """{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{% set ns = namespace(is_first=false, is_tool=false, is_output_first=true, system_prompt='', is_first_sp=true) %}{%- for message in messages %}{%- if message['role'] == 'system' %}{%- if ns.is_first_sp %}{% set ns.system_prompt = ns.system_prompt + message['content'] %}{% set ns.is_first_sp = false %}{%- else %}{% set ns.system_prompt = ns.system_prompt + '\\n\\n' + message['content'] %}{%- endif %}{%- endif %}{%- endfor %}{{ bos_token }}{{ ns.system_prompt }}{%- for message in messages %}{%- if message['role'] == 'user' %}{%- set ns.is_tool = false -%}{{'<|User|>' + message['content']}}{%- endif %}{%- if message['role'] == 'assistant' and 'tool_calls' in message %}{%- set ns.is_tool = false -%}{%- for tool in message['tool_calls'] %}{%- if not ns.is_first %}{%- if not message['content'] %}{{'<|Assistant|><|calls|><|call|>' + tool['type'] + '<|sep|>' + tool['function']['name'] + '\\n' + '```json' + '\\n' + tool['function']['arguments']|tojson + '\\n' + '```' + '<|end|>'}}{%- else %}{{'<|Assistant|>' + message['content'] + '<|calls|><|call|>' + tool['type'] + '<|sep|>' + tool['function']['name']}}{%- endif %}{%- set ns.is_first = true -%}{%- else %}{{'\\n' + '<|call|>' + tool['type'] + '<|sep|>' + tool['function']['name']}}{%- endif %}{%- endfor %}{{'<|calls_end|><|eos|>'}}{%- endif %}{%- if message['role'] == 'assistant' and 'tool_calls' not in message %}{%- if ns.is_tool %}{{'<|outputs_end|>' + message['content'] + '<|eos|>'}}{%- set ns.is_tool = false -%}{%- else %}{% set content = message['content'] %}{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}{{'<|Assistant|>' + content + '<|eos|>'}}{%- endif %}{%- endif %}{%- if message['role'] == 'tool' %}{%- set ns.is_tool = true -%}{%- if ns.is_output_first %}{{'<|outputs|><|output|>' + message['content'] + '<|output_end|>'}}{%- set ns.is_output_first = false %}{%- else %}{{'<|output|>' + message['content'] + '<|output_end|>'}}{%- endif %}{%- endif %}{%- endfor -%}{% if ns.is_tool %}{{'<|outputs_end|>'}}{% endif %}{% if add_generation_prompt and not ns.is_tool %}{{'<|Assistant|><think>\\n'}}{% endif %}""",
    "hermes_macros": """{%- macro json_to_python_type(json_spec) %}
{%- set basic_type_map = {"string": "str", "number": "float", "integer": "int", "boolean": "bool"} %}
{%- if basic_type_map[json_spec.type] is defined %}
    {{- basic_type_map[json_spec.type] }}
{%- elif json_spec.type == "array" %}
    {{- "list[" +  json_to_python_type(json_spec|items) + "]"}}
{%- elif json_spec.type == "object" %}
    {%- if json_spec.additionalProperties is defined %}
        {{- "dict[str, " + json_to_python_type(json_spec.additionalProperties) + ']'}}
    {%- else %}
        {{- "dict" }}
    {%- endif %}
{%- elif json_spec.type is iterable %}
    {{- "Union[" }}
    {%- for t in json_spec.type %}
      {{- json_to_python_type({"type": t}) }}
      {%- if not loop.last %}
        {{- "," }}
    {%- endif %}
    {%- endfor %}
    {{- "]" }}
{%- else %}
    {{- "Any" }}
{%- endif %}
{%- endmacro %}
{{- bos_token }}
{{- '<|im_start|>system\n<tools> ' }}
{%- for tool in tools %}
    {%- if tool.function is defined %}
        {%- set tool = tool.function %}
    {%- endif %}
    {{- '{"type": "function", "function": ' }}
    {{- '{"name": "' + tool.name + '", ' }}
    {{- '"description": "' + tool.name + '(' }}
    {%- for param_name, param_fields in tool.parameters.properties|items %}
        {{- param_name + ": " + json_to_python_type(param_fields) }}
        {%- if not loop.last %}
            {{- ", " }}
        {%- endif %}
    {%- endfor %}
    {{- ")" }}
    {%- if tool.return is defined %}
        {{- " -> " + json_to_python_type(tool.return) }}
    {%- endif %}
    {{- " - " + tool.description + "\n\n" }}
    {%- for param_name, param_fields in tool.parameters.properties|items %}
        {%- if loop.first %}
            {{- "    Args:\n" }}
        {%- endif %}
        {{- "        " + param_name + "(" + json_to_python_type(param_fields) + "): " + (param_fields.description or '')|trim }}
    {%- endfor %}
    {{- ', "parameters": ' }}
    {%- if tool.parameters.properties | length == 0 %}
        {{- "{}" }}
    {%- else %}
        {{- tool.parameters|tojson }}
    {%- endif %}
    {{- "}" }}
    {%- if not loop.last %}
        {{- "\n" }}
    {%- endif %}
{%- endfor %}
{{- " </tools>" -}}
{{- '<|im_end|>\n' }}
{%- for message in messages %}
    {%- if message.role == "user" or message.role == "system" or (message.role == "assistant" and message.tool_calls is not defined) %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role }}
    {%- for tool_call in message.tool_calls %}
       {{- '\n<tool_call>\n' }}           {%- if tool_call.function is defined %}
                {%- set tool_call = tool_call.function %}
            {%- endif %}
            {{- '{' }}
            {{- '"name": "' }}
            {{- tool_call.name }}
            {{- '"' }}
            {{- ', '}}
            {%- if tool_call.arguments is defined %}
                {{- '"arguments": ' }}
                {%- if tool_call.arguments is string %}
                    {{- tool_call.arguments }}
                {%- else %}
                    {{- tool_call.arguments|tojson }}
                {%- endif %}
            {%- endif %}
             {{- '}' }}
            {{- '\n</tool_call>' }}
    {%- endfor %}
        {{- '<|im_end|>\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.previtem and loop.previtem.role != "tool" %}
            {{- '<|im_start|>tool\n' }}
        {%- endif %}
        {{- '<tool_response>\n' }}
        {{- message.content }}
        {%- if not loop.last %}
            {{- '\n</tool_response>\n' }}
        {%- else %}
            {{- '\n</tool_response>' }}
        {%- endif %}
        {%- if not loop.last and loop.nextitem.role != "tool" %}
            {{- '<|im_end|>' }}
        {%- elif loop.last %}
            {{- '<|im_end|>' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
""",
    "generation_tag": """{% for message in messages %}{{ message.role }}: {% if message.role == 'assistant' %}{% generation %}{{ message.content }}{{ loop.index }}{% endgeneration %}{% else %}{{ message.content }}{% endif %}
{% endfor %}""",
    "smol_date": """{{- strftime_now("%d %B %Y, %H:%M:%S %j %a %-d/%m/%y %I%p %%") }}{% set date = strftime_now('%Y-%m-%d') if strftime_now is defined else 'x' %}{{ date }}{{ messages|map(attribute='role')|join(',') }}""",
    "namespace_counts": """{% set ns = namespace(n=0, roles=[]) %}{% for m in messages if m.role != 'system' %}{% set ns.n = ns.n + 1 %}{% set ns.roles = ns.roles + [m.role|upper] %}{{ loop.index }}/{{ loop.length }} {{ loop.revindex }} {{ loop.cycle('a', 'b', 'c') }}{{ ',' if not loop.last }}{% else %}none{% endfor %}|{{ ns.n }}|{{ ns.roles }}|{{ ns.roles | unique | list | tojson }}""",
    "content_parts": """{% for message in messages %}{% set content %}{% if message.content is string %}{{ message.content }}{% elif message.content is not none and message.content is sequence %}{% for part in message.content %}{% if part.type == 'text' %}{{ part.text }}{% elif 'image' in part or part.type == 'image' %}<image>{% else %}{{ raise_exception('part ' ~ part.type) }}{% endif %}{% endfor %}{% endif %}{% endset %}[{{ message.role|title }}] {{ content|trim|replace('\n', '\\n') }} ({{ content|length }})
{% endfor %}""",
    "break_continue": """{% for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}{% if loop.index > 3 %}{% break %}{% endif %}<{{ m.role }}>{{ m.content if m.content is string else m.content|tojson }}</{{ m.role }}>{% else %}-else-{% endfor %}{{ messages[::-1]|map(attribute='role')|list }}{{ messages[-1].role }}{{ (messages|last).content|default('none', true) }}""",
    "call_macro": """{% macro turn(role, prefix='<', suffix='>') %}{{ prefix }}{{ role }}{{ suffix }}{{ caller() if caller is defined else '-' }}{{ kwargs|length }}{{ varargs|length }}{% endmacro %}{% for m in messages %}{% call turn(m.role, suffix='|') %}{{ m.content }}{% endcall %}{{ turn(m.role, '(', ')', 'x', extra=1) }}{% filter upper %}{{ m.role }} ß{% endfilter %}{% endfor %}""",
    "raw_and_comments": """{# a comment #}
{% raw %}{{ not rendered }} {% if %}{% endraw %}
  {#- trimmed -#}  x
{%+ if true %}kept
{% endif +%}
    {{ messages|length }}
{% with a = 1, b = messages[0].role %}{{ a }}{{ b }}{% endwith %}
""",
    "granite_documents": """{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content'] %}{%- set loop_messages = messages[1:] %}{%- else %}{%- set system_message = "Today's Date: " + strftime_now('%B %d, %Y') + ".\nYou are helpful." %}{%- if tools and documents %}{%- set system_message = system_message + " both" %}{%- elif tools %}{%- set system_message = system_message + " tools" %}{%- elif documents %}{%- set system_message = system_message + " documents" %}{%- elif thinking %}{%- set system_message = system_message + " thinking" %}{%- endif %}{%- set loop_messages = messages %}{%- endif %}{{- '<|role|>system' + system_message + '\n' }}{%- if tools %}{{- tools | tojson(indent=4) }}{%- endif %}{%- for message in loop_messages %}{{- '<|role|>' + message['role'] + '<|end|>' + (message['content'] if message['content'] is string else message['content'] | tojson(separators=(',', ':'), ensure_ascii=true)) + '\n' }}{%- if loop.last and add_generation_prompt %}{{- '<|role|>assistant' }}{%- if controls %}{{- ' ' + controls | tojson()}}{%- endif %}{%- endif %}{%- endfor %}""",
    "cohere_turns": """{{ bos_token }}{% set ns = namespace(found=false) %}{% for message in messages|reverse %}{% if message.role == 'user' and not ns.found %}{% set ns.found = true %}{% set ns.last_user = loop.revindex0 %}{% endif %}{% endfor %}{{ ns.last_user }}{% for role, group in messages|groupby('role') %}{{ role }}={{ group|length }};{% endfor %}{% for k, v in messages[0]|dictsort %}{{ k }}:{{ v if v is string else v|tojson(sort_keys=true) }} {% endfor %}{{ messages|selectattr('tool_calls', 'defined')|list|length }}{{ messages|rejectattr('role', 'in', ['user', 'system'])|map(attribute='role')|join('+') }}""",
}

# Short templates, one construct or quirk each.
SNIPPETS = [
    "{{ none[:1] }}|{{ 5[:1] ~ 'x' }}|{{ none[:1]|default('d') }}|{{ 'abc'[1:] }}|{{ [1, 2, 3][::-1] }}|{{ 1.5[0:2:1] }}",
    "{{ none[:1].x }}",
    "{% set x = none[:1] %}{{ x }}",
    "{% for x in [1, 2, 3] %}{{ x }}{% for y in loop %}({{ y[0] }},{{ loop.index }}){% endfor %}{{ loop.index }}{% endfor %}",
    "{% for x in [1, 2, 3, 4] %}{{ x }}{% for y, l in loop %}({{ y }},{{ l.index }}){% break %}{% endfor %}{{ loop.index }};{% endfor %}",
    "{% for x in [1, 2, 3, 4] %}{{ loop|first|first }}{% endfor %}|{% for x in 'abcd' if x != 'b' %}{{ loop|map('first')|list }}{% endfor %}",
    "{% for x in [1, 2, 3] %}{{ loop is iterable }}{{ loop is sequence }}{{ loop|length }}{{ (3, loop) in loop }}{{ x }}{% endfor %}",
    "{% for x in [1, 2, 3, 4] %}{{ loop.nextitem }}{{ (loop|list)|length }}{{ loop.previtem }}{{ loop.last }}{% endfor %}",
    "{{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % -3 }} {{ -7.5 % 2 }} {{ 2 ** 10 }} {{ 2 ** -1 }} {{ 7 / 2 }} {{ 1e3 }} {{ 1.0 }} {{ 1e16 }} {{ 1e-5 }} {{ 0.1 + 0.2 }} {{ 123456789012345.678 }}",
    "{{ (-3) ** (messages|length) }} {{ (-3) ** 2 }} {{ (1 - 3) ** messages|length }} {{ (-1.5) ** messages|length }}",
    "{{ 1 + 2 ~ 3 * 4 }} {{ -2 ** 2 }} {{ 2 ** 3 ** 2 }} {{ not 1 == 2 }} {{ 1 < 2 < 3 }} {{ 3 > 2 > 2 }} {{ 1 in [1] in [[1]] }}",
    "{{ 'a' 'b' \"c\\n\\x41\\u00e9\\101\\q\" }} {{ 'é\\é' }} {{ '\\'' }}",
    "{{ [1, 'a', None, True, 1.5, (1,), (), {'k': \"it's\"}, 'x\\n\\x01é\\u200b'] }}",
    "{{ (1, 2) }} {{ {} }} {{ [] }} {{ {'a': [1, {'b': none}]} }} {{ none }} {{ undefinedvar }}|{{ undefinedvar is defined }}",
    "{{ 'abc'[1] }} {{ 'äöü'[::-1] }} {{ 'äöü'[-2:] }} {{ [1,2,3,4][1:3] }} {{ [1,2,3,4][::-2] }} {{ (1,2,3)[5:] }} {{ 'abc'[10] }}|{{ [1][3] is undefined }}",
    "{{ 'x'.upper() }} {{ 'ß straße ǆ İ'.upper() }} {{ 'ΑΣ ΟΔΟΣ'.lower() }} {{ \"they're bill's\".title() }} {{ \"they're bill's\"|title }} {{ 'hello WORLD'|capitalize }} {{ 'Ǆ'.swapcase() }}",
    "{{ 'a,b,,c'.split(',') }} {{ ' a  b '.split() }} {{ 'a b c d'.rsplit(' ', 1) }} {{ 'a b c'.split(' ', 1) }} {{ 'abc'.partition('b') }} {{ 'a\\nb\\r\\nc'.splitlines() }} {{ 'a  b  c'.rsplit(None, 1) }} {{ 'a  b  c'.split(none, 1) }}",
    "{{ 'xxabcxx'.strip('x') }} {{ 'xxabcxx'.lstrip('x') }} {{ 'äxäa'.strip('äx') }} {{ '  a '.rstrip() }}| {{ 'abc'.startswith(('x', 'a')) }} {{ 'abc'.endswith('bc', 1) }} {{ 'abcabc'.find('c', 3) }} {{ 'äbä'.rfind('ä') }} {{ 'abc'.find('x') }} {{ 'aXbX'.replace('X', '-', 1) }} {{ 'ab'.replace('', '.') }}",
    "{{ 'abc'.removeprefix('a').removesuffix('c') }} {{ '12'.isdigit() }} {{ ''.isalpha() }} {{ 'ab'.isalpha() }} {{ 'a1'.isalnum() }} {{ ' '.isspace() }} {{ 'Ab'.istitle() }} {{ '²'.isdigit() }} {{ '½'.isnumeric() }} {{ 'ab'.center(7, '*') }} {{ '5'.zfill(3) }} {{ '-5'.zfill(4) }} {{ '-'.join(['a', 'b']) }} {{ 'aab'.count('a') }}",
    "{{ '{} {1}'.format(1, 2) }}",
    "{{ '{} {} {x!r:>5} {y.a} {z[0]} {{}} {w:.2f} {n:05d} {n:,} {n:x}'.format(1, 'a', x='q', y={'a': 5}, z=[9], w=3.14159, n=12345) }}",
    "{{ '%s %d %5.1f|%-5s|%05d %x %r %%' % ('a', 3, 2.25, 'b', 42, 255, 'q') }} {{ '%(a)s' % {'a': 1} }} {{ '%s'|format(5) }} {{ 'x' % [] }}",
    "{{ '{:<6}|{:^6}|{:>6}|{:*^7}'.format('a', 'b', 3, 'c') }} {{ '{:e} {:g} {:.3} {:%} {:+d} {:#x} {:_} {:08.3f}'.format(12345.678, 0.0001, 2.0, 0.5, 3, 255, 1234567, 3.14159) }}",
    "{{ {'a': 1}.items() }} {{ {'a': 1}.keys() }} {{ {'a': 1}.values() | list }} {{ {'a': 1}.get('b') }} {{ {'a': 1}.get('b', 2) }} {{ {'items': 5}.items is callable }} {{ {'items': 5}['items'] }} {{ {'x': 5}.x }}",
    "{{ {'a': 1}.pop('a') }}",
    "{{ [1].append(2) }}",
    "{{ {'a': 1}.update({'b': 2}) }}",
    "{{ [1].append is defined }} {{ ''.__class__ is defined }}|{{ [].append }}|",
    "{{ x.y }}",
    "{{ x.y.z }}",
    "{{ {'a': 1}.b.c }}",
    "{{ none.x }}|{{ none['x'] is undefined }}",
    "{{ 1 + '1' }}",
    "{{ 'a' + 1 }}",
    "{{ none + 'a' }}",
    "{{ 'a' in none }}",
    "{{ undefinedvar + 1 }}",
    "{{ undefinedvar ~ 1 }}{{ undefinedvar == undefinedvar2 }}{{ undefinedvar|length }}{{ undefinedvar|list }}{{ undefinedvar|upper }}{{ 'x' if undefinedvar else 'y' }}{% for a in undefinedvar %}{% else %}E{% endfor %}",
    "{{ [3, 1, 2]|sort }} {{ ['b', 'A', 'c']|sort }} {{ ['b', 'A', 'c']|sort(case_sensitive=true) }} {{ [3, 1]|sort(reverse=true) }} {{ [{'a': 2, 'b': 1}, {'a': 1, 'b': 2}]|sort(attribute='a') }} {{ [{'a': 1, 'b': 2}, {'a': 1, 'b': 1}]|sort(attribute='a,b')|map(attribute='b')|list }}",
    "{{ [1, 2, 3, 4, 5]|batch(2)|list }} {{ [1, 2, 3, 4, 5]|batch(2, 'x')|list }} {{ [1, 2, 3, 4, 5]|slice(2)|list }} {{ [1, 2, 3, 4, 5]|slice(3, 'x')|list }}",
    "{{ [1, 2, 3]|sum }} {{ [{'a': 1}, {'a': 2}]|sum('a') }} {{ [1.5, 2]|sum(start=1) }} {{ [3, 1]|min }} {{ [3, 1]|max }} {{ []|max is undefined }} {{ ['b', 'A']|min }}",
    "{{ 42.55|round }} {{ 42.55|round(1, 'floor') }} {{ 42.55|round(1, 'ceil') }} {{ 2.5|round }} {{ 3.5|round }} {{ 5|round }} {{ 2.675|round(2) }} {{ 1234|round(-2) }} {{ 1250|round(-2) }} {{ 1350.5|round(-2) }}",
    "{{ '42'|int }} {{ '42.9'|int }} {{ 'x'|int }} {{ 'x'|int(5) }} {{ '0x1f'|int(0, 16) }} {{ '1_000'|int }} {{ 3.9|int }} {{ none|int }} {{ true|int }} {{ ' 7 '|int }} {{ '1e3'|int }} {{ '101'|int(base=2) }} {{ '3.5'|float }} {{ 'x'|float }} {{ 'inf'|float }} {{ 'x'|float(1.5) }} {{ 5|float }}",
    "{{ 'a\\nb\\n\\nc'|indent }}|{{ 'a\\nb'|indent(2, true) }}|{{ 'a\\n\\nb'|indent('>', blank=true) }}|{{ ''|indent }}|{{ '\\n'|indent(1) }}",
    "{{ 'foo bar baz qux'|truncate(9) }} {{ 'foo bar baz qux'|truncate(9, True) }} {{ 'foo bar baz qux'|truncate(11) }} {{ 'foo bar baz qux'|truncate(11, False, '..', 0) }} {{ 'a b, c_d'|wordcount }}",
    "{{ '<a href=\"x\">&\\''|e }} {{ '<a>'|escape|escape }} {{ '<a>'|safe }} {{ ('<'|e) + '<' }} {{ ('<'|safe) ~ '<' }} {{ '<'|e|upper }} {{ '<'|forceescape }} {{ ['<'|e] }}",
    "{{ {'b': 1, 'a': [1, 2.0, none, true, 'ü\"\\n\\u2028']}|tojson }} {{ {'b': 1, 'a': 2}|tojson(sort_keys=true) }} {{ 'ü😀'|tojson(ensure_ascii=true) }} {{ {'a': [], 'b': {}, 'c': [1]}|tojson(indent=2) }} {{ [1]|tojson(indent='\\t') }} {{ [1, {'a': 2}]|tojson(separators=(',', ':')) }} {{ {1: 2, none: 3, true: 4, 1.5: 5}|tojson }} {{ (1, 2)|tojson }}",
    "{{ undefinedvar|tojson }}",
    "{{ range(3)|tojson }}",
    "{{ range(5)|list }} {{ range(1, 10, 3)|list }} {{ range(5, 0, -2)|list }} {{ range(3) }} {{ range(10)[2:5] }} {{ range(3)|length }} {{ 3 in range(5) }}",
    "{{ range(100001)|length }}",
    "{{ dict(a=1, b=2) }} {{ dict([('x', 1)], y=2) }} {{ dict({'a': 1}) }} {{ namespace(a=1).a }} {{ namespace(a=1) }}",
    "{% set ns = namespace(a=1) %}{% set ns.a, ns.b = 5, 6 %}{{ ns.a }}{{ ns.b }}{{ ns.c }}{{ ns['a'] }}|",
    "{% set x = {} %}{% set x.a = 1 %}",
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set (a, b) = (b, a) %}{{ a }}{{ b }}{% for (x, y), z in [((1, 2), 3)] %}{{ x }}{{ y }}{{ z }}{% endfor %}",
    "{% set a, b = [1, 2, 3] %}",
    "{% set a, b = [1] %}",
    "{% set x = 1 %}{% for i in [1, 2] %}{{ x }}{% set x = x + i %}{{ x }} {% endfor %}{{ x }}",
    "{% for i in [1, 2] %}{% if i == 1 %}{% set y = 5 %}{% endif %}{{ y }}|{% endfor %}{{ y }}",
    "{% macro f() %}{{ v }}{% endmacro %}{{ f() }}{% set v = 3 %}{{ f() }}",
    "{% for m in messages %}{{ bos_token }}{% endfor %}{% set bos_token = 1 %}{{ bos_token }}",
    "{% if true %}{% set q = 1 %}{% endif %}{{ q }}{% if false %}{% set bos_token = 'z' %}{% endif %}{{ bos_token }}",
    "{% macro f(a, b=2, c=a) %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ f(1) }} {{ f(1, c=9) }} {{ f(b=5, a=3) }} {{ f() }}",
    "{% macro f(a) %}{% endmacro %}{{ f(1, 2) }}",
    "{% macro f(a) %}{% endmacro %}{{ f(b=2) }}",
    "{% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(5) }}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{% macro list(items) %}{% for i in items %}{{ caller(i) }}{% endfor %}{% endmacro %}{% call(x) list([1, 2]) %}<{{ x }}>{% endcall %}",
    "{% macro f() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ f(1, 2, a=3) }}{{ f.name }}{{ f.arguments }}{{ f.catch_kwargs }}",
    "{% for i in [1, [2, [3]]] recursive %}{% if i is iterable %}{{ loop(i) }}{% else %}{{ i }}:{{ loop.depth }} {% endif %}{% endfor %}",
    "{% for i in [1, 2, 3] if i is odd %}{{ i }}{{ loop.last }}{{ loop.nextitem }}{{ loop.previtem }}|{% endfor %}",
    "{% for i in [1, 2] %}{% for j in [1, 2] %}{{ loop.index }}{{ i }}{% endfor %}{{ loop.index }}{% endfor %}{% for i in [] %}{% else %}empty{% endfor %}",
    "{% for i in [1, 1, 2] %}{{ loop.changed(i) }}{{ loop.revindex0 }}{{ loop.depth0 }}{{ loop }} {% endfor %}",
    "{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}{{ v }}{{ loop.first }}{% endfor %}{% for c in 'aé😀' %}[{{ c }}]{% endfor %}{% for k in {'x': 1} %}{{ k }}{% endfor %}",
    "{% for i in [1, 2, 3] %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% else %}E{% endfor %}{% for i in [1] %}{% break %}{% else %}E{% endfor %}{% for i in [1] %}{% continue %}{% else %}E{% endfor %}",
    "{% break %}",
    "{% set x %}a{{ 1 }}{% endset %}{{ x }}{% set y | upper | replace('A', 'z') %}a{% endset %}{{ y }}",
    "{% set c.x %}a{% endset %}b",
    "{% set c = 3 %}{% set c.x %}a{% endset %}b",
    "{% set c = [1] %}{% set c.x %}a{% endset %}b",
    "{% set c = {} %}{% set c.x %}a{% endset %}{{ c }}{% set c._y | upper %}b{% endset %}{{ c }}",
    "{% set c = namespace() %}{% set c.x %}a{% endset %}{{ c.x }}",
    "{% filter upper | trim %}  a{{ 'b' }} {% endfilter %}|",
    "{% with x = 1, y = x %}{{ x }}{{ y }}{% set x = 5 %}{{ x }}{% endwith %}{{ x }}",
    "{{ 'y' if false }}|{{ ('y' if false) is undefined }}|{{ 1 if true else 2 if true else 3 }}",
    "{{ [1, 2, 3]|map('string')|join('-') }} {{ ['a', 'b']|map('upper')|list }} {{ [{'a': {'b': 1}}]|map(attribute='a.b')|list }} {{ [{}]|map(attribute='a', default='d')|list }} {{ ['ab', 'cd']|map('replace', 'a', 'x')|list }}",
    "{{ [1, 2, 3]|select('odd')|list }} {{ [0, 1, '']|select|list }} {{ [1, 2]|reject('equalto', 1)|list }} {{ [{'a': 1}, {}]|selectattr('a')|list }} {{ [{'a': 1}, {'a': 2}]|selectattr('a', 'gt', 1)|list }} {{ [{'a': none}]|rejectattr('a', 'none')|list }} {{ [1, 5]|select('>', 3)|list }}",
    "{{ [1, 2]|select('odd')|length }}",
    "{{ [1, 2]|select('odd')|last }}",
    "{{ [1, 2]|select('odd')|first }} {{ ([1, 2]|select('even'))[0] is undefined }} {{ 'T' if []|select else 'F' }} {{ [1, 2]|reverse|list }} {{ 'abc'|reverse }} {{ [1, 2]|first }} {{ []|first is undefined }} {{ 'abc'|last }}",
    "{% set g = [1, 2]|map('string') %}{{ g|join }}{{ g|join }}|",
    "{{ [1, 1, 'a', 'A']|unique|list }} {{ ['a', 'A']|unique(case_sensitive=true)|list }} {{ {'b': 1, 'a': 2}|dictsort }} {{ {'b': 1, 'a': 2}|dictsort(by='value') }} {{ {'b': 1, 'A': 2}|dictsort(true) }} {{ {'a': 1}|items|list }}",
    "{{ [{'r': 'b', 'v': 1}, {'r': 'a', 'v': 2}, {'r': 'B', 'v': 3}]|groupby('r') }} {% for g in [{'r': 1}]|groupby('r') %}{{ g.grouper }}{{ g.list }}{{ g[0] }}{% endfor %}",
    "{{ none|default('x') }} {{ none|default('x', true) }} {{ ''|d('y', boolean=true) }} {{ undefinedvar|default }}| {{ undefinedvar|default(5) }} {{ false|default(1) }}",
    "{{ 1 is number }} {{ true is number }} {{ 1.5 is float }} {{ true is integer }} {{ 1 is integer }} {{ 'a' is string }} {{ [] is sequence }} {{ {} is mapping }} {{ {} is sequence }} {{ 'a' is iterable }} {{ 1 is iterable }} {{ none is none }} {{ 1 is boolean }} {{ true is true }} {{ 1 is true }} {{ 4 is divisibleby 2 }} {{ 4 is divisibleby(3) }} {{ 3 is odd }} {{ 2 is even }} {{ 1 is sameas 1 }} {{ 'a' is in 'abc' }} {{ 1 is eq 1 }} {{ 1 is lt(2) }} {{ 'a' is lower }} {{ 'A1' is upper }} {{ range is callable }} {{ 'upper' is filter }} {{ 'odd' is test }} {{ 1 is not none }} {{ undefinedvar is sequence }}",
    "{{ 1 == 1.0 }} {{ true == 1 }} {{ 'a' == 1 }} {{ none == false }} {{ [1] == [1.0] }} {{ (1,) == [1] }} {{ {'a': 1} == {'a': 1} }} {{ {1: 2}[true] }} {{ [1, 2] < [1, 3] }} {{ 'a' < 'b' }}",
    "{{ 1 < 'a' }}",
    "{{ [1] < 1 }}",
    "{{ [1] + [2] }} {{ [1] * 3 }} {{ 'ab' * 2 }} {{ (1,) + (2,) }} {{ 'a' ~ none ~ true ~ 1.0 }} {{ 3 * 'x' }} {{ 'x' * -1 }}|",
    "{{ 1 // 0 }}",
    "{{ 1.5 // 0 }}",
    "{{ '' or 'x' }} {{ 'a' and 'b' }} {{ 0 or [] or none }} {{ not [] }} {{ 1 and 0 }}",
    "{{ cycler('a', 'b').next() }} {% set c = cycler(1, 2) %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.current }}{{ c.reset() }}{{ c.current }} {% set j = joiner() %}{{ j() }}a{{ j() }}b",
    "{{ raise_exception('stop here') }}",
    "{{ raise_exception() }}",
    "{{ foo() }}",
    "{{ 'abc'() }}",
    "{{ [1, 2][true] }} {{ {'a': 1}['b'] is undefined }} {{ [1, 2]['x'] is undefined }} {{ 'abc'['upper']() }} {{ messages[0]['role'] }} {{ messages.0.role }}",
    "{{ [[]] in [[[]]] }} {{ 'x' not in ['y'] }} {{ 1 not in {} }}",
    "{{ {[]: 1} }}",
    "{{ 5 is foo }}",
    "{{ 5|foo }}",
    "{% if false %}{{ 5|foo }}{% endif %}ok",
    "{% if true %}{{ 5|foo }}{% endif %}",
    "{{ 1 if true else 5|foo }}",
    "{% unknown %}",
    "{% if x %}",
    "{{ 1 + }}",
    "{{ (1 }}",
    "{{ 'a }}",
    "{% for x in %}{% endfor %}",
    "{% set 1 = 2 %}",
    "{% set none = 2 %}",
    "{% for loop in [1] %}{% endfor %}",
    "{{ f(a=1, a=2) }}",
    "{{ f(**{'a': 1}, b=2) }}",
    "{{ dict(**{'a': 1}) }} {% macro m(a, b) %}{{ a }}{{ b }}{% endmacro %}{{ m(*[1, 2]) }}{{ m(*[1], b=3) }}{{ m(**{'a': 5}) }}",
    "{#- c -#} a {#+ d +#} b\n{# e #}\nc",
    "  {% if true %}  \n  x\n  {% endif %}  \n\n",
    "{%- if true -%}  \n  x\n  {%- endif -%}  \n\ny",
    "a\n  {%+ if true %}b{% endif %}\n\n  {{ 1 }}\n",
    "a\r\nb\rc\n",
    "{{ 1_000 }} {{ 0x1f }} {{ 0b11 }} {{ 0o17 }} {{ 1e2 }} {{ 1.5e-3 }}",
    "{{ 007 }}",
    "{{ {'a': {'b': 1}} }}{{ {'a':{'b':1}}.a.b }}",
    "{{ '}}' }}{{ \"%}\" }}",
    "{{ 'ǅungla'|title }} {{ 'a-b (c) [d] <e> {f} g_h'|title }} {{ 'ﬁx'.capitalize() }} {{ 'ﬃ'.upper() }}",
    "{{ 9223372036854775807 }} {{ -9223372036854775807 - 1 }}",
    "{{ 'a'.join('xyz') }} {{ ''.join([]) }} {{ 'x'.join([1]) }}",
    "{{ messages|map(attribute='content')|select('string')|map('length')|list }} {{ messages|length }} {{ messages[0].keys()|list }}",
    "{% print 1, 'a' %}{% print [1] %}",
    "{{ lipsum is defined }} {{ loop is defined }} {{ caller is defined }} {{ tools is none }} {{ documents is none }} {{ add_generation_prompt }}",
    "{{ 'a b'|urlencode }} {{ {'a': 'b c', 'd': 1}|urlencode }} {{ 1234567|filesizeformat }} {{ 1|filesizeformat }} {{ 2048|filesizeformat(true) }} {{ 'x'|center(5) }}| {{ 'x'|attr('upper') is callable }} {{ -5|abs }} {{ (-5)|abs }} {{ -5.5|abs }}",
    "{{ 'ab'|list }} {{ {'a': 1}|list }} {{ (1, 2)|list }} {{ 5|string + 'x' }} {{ [1, none]|join(',') }} {{ [{'a': 1}]|join(',', attribute='a') }} {{ 'abc'|join('-') }} {{ ' x '|trim }}|{{ 'xax'|trim('x') }}|{{ 5|trim }}",
    "{{ 'A' is upper is true }}",
    "{% set x = 5 -%}\n  {{ x -}} \n {{- x }}",
    "{% raw -%} {{ a }} {%- endraw %} b",
    "{{ (messages|first).role }}{{ messages[0].get('role', 'none') }}{{ messages[0].get('zzz', 'none') }}",
    "{{ 1.0|int }} {{ 3.0 * 2 }} {{ 10 % 3.5 }} {{ 7 // 2.0 }} {{ 1 / 3 }} {{ 100000000000000000000.0 }} {{ 5e-324 }} {{ 1.7976931348623157e308 }}",
]


class Grammar:
    """Random templates: mostly valid, sometimes failing, so that errors are compared too."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.names = ["a", "b", "c", "x", "items", "text", "messages", "tools", "bos_token", "ns", "missing"]

    def pick(self, *options):
        return self.random.choice(options)

    def literal(self):
        return self.pick(
            "1", "0", "2", "-3", "7", "1.5", "0.1", "2.0", "true", "false", "none", "'a'", "'b c'", '"it\'s"', "''", "'äÖ😀'", "' pad '", "'a,b,c'", "'x\\ny'", "'<&>'",
            "[]", "[1, 2, 3]", "['b', 'A', 'c']", "{}", "{'a': 1, 'b': [2]}", "(1, 'z')", "[{'a': 1}, {'a': 2, 'b': 'q'}]", "'12'", "'3.7'", "[[1, 2], [3]]", "'user'", "[none, 1]")

    def name(self):
        return self.random.choice(self.names)

    # Expressions of a wanted type, which mostly render; one in fifty is of any type.
    STRINGS = ["'a'", "'b c'", '"it\'s"', "''", "'äÖ😀'", "' pad '", "'a,b,c'", "'x\\ny'", "'<&>'", "'Hello World'", "messages[0].role", "messages[-1]['role']", "text", "'ß'"]
    NUMBERS = ["1", "0", "2", "-3", "7", "1.5", "0.1", "2.0", "100", "messages|length", "true", "10 ** 3"]
    LISTS = ["[]", "[1, 2, 3]", "[3, 1.5, 2]", "range(4)", "[0, 1, 1]"]
    WORDS = ["['b', 'A', 'c']", "'a,b'.split(',')", "messages|map(attribute='role')|list", "['x']", "('p', 'q')", "['a', 'B', 'a']"]
    DICTS = ["{}", "{'a': 1, 'b': [2]}", "{'b': 'x', 'A': none}", "dict(a=1, k='v')", "messages[0]", "{'a': {'b': 'c'}}", "{1: 2, 'z': 1.5}"]
    RECORDS = ["messages", "[{'a': 1}, {'a': 2, 'b': 'q'}]", "[{'a': 'x', 'role': 'user'}]", "messages[1:]", "messages[::-1]"]

    def typed(self, kind, depth):
        if self.random.random() < 0.01:
            return self.wild(depth)
        return "(%s)" % getattr(self, "typed_" + kind)(depth)

    def typed_string(self, depth):
        if depth <= 0:
            return self.random.choice(self.STRINGS)
        t = lambda kind: self.typed(kind, depth - 1)  # noqa: E731
        return self.pick(
            lambda: t("string") + " + " + t("string"), lambda: t("any") + " ~ " + t("any"), lambda: t("string") + "|" + self.pick("upper", "lower", "title", "capitalize", "trim", "reverse", "indent(2)", "replace('a', 'zz')", "truncate(6)", "center(9)", "trim('a ')", "indent('> ', true)", "string", "default('q')", "wordcount|string", "urlencode"),
            lambda: t("string") + "." + self.pick("upper()", "lower()", "strip()", "lstrip('a')", "rstrip()", "title()", "capitalize()", "swapcase()", "replace('b', 'Q')", "removeprefix('a')", "removesuffix('c')", "zfill(6)", "ljust(5, '.')", "rjust(5)", "center(6)", "casefold()", "format(1, 2)", "split(',')[0]", "partition('b')[2]", "expandtabs(4)"),
            lambda: t("string") + "[%s:%s%s]" % (self.pick("", "0", "1", "-2", "9"), self.pick("", "2", "-1", "5"), self.pick("", "", ":", ":2", ":-1")), lambda: t("words") + "|join(%s)" % self.pick("", "', '", "'-'"), lambda: t("list") + "|join('|')", lambda: t("any") + "|tojson" + self.pick("", "(indent=2)", "(sort_keys=true)", "(ensure_ascii=true)", "(separators=(',', ':'))", "(indent=1, sort_keys=true)"),
            lambda: "'%s-%d' % (" + t("string") + ", 3)", lambda: "'{:>8}|{}'.format(" + t("string") + ", " + t("any") + ")", lambda: t("string") + " if " + t("bool") + " else " + t("string"), lambda: t("string") + " * 2", lambda: t("any") + "|string", lambda: t("records") + "|map(attribute='role')|map('default', 'none')|join(',')", lambda: "m1(" + t("any") + ")", lambda: "m2(" + t("any") + ", b=" + t("any") + ")",
        )()

    def typed_number(self, depth):
        if depth <= 0:
            return self.random.choice(self.NUMBERS)
        t = lambda kind: self.typed(kind, depth - 1)  # noqa: E731
        return self.pick(
            lambda: t("number") + self.pick(" + ", " - ", " * ") + t("number"), lambda: t("number") + self.pick(" // ", " % ", " / ") + self.pick("3", "-2", "2.5", "7"), lambda: "-" + t("number"), lambda: t("number") + "|" + self.pick("abs", "int", "float", "round", "round(1)", "round(2, 'floor')", "round(0, 'ceil')", "round(-1)"), lambda: t("string") + "|" + self.pick("length", "int", "float", "wordcount", "int(3, 16)", "count"),
            lambda: t("list") + "|" + self.pick("sum", "length", "list|length"), lambda: t("string") + "." + self.pick("find('a')", "count('a')", "rfind('b', 1)", "find('c', -2)"), lambda: t("dict") + "|length", lambda: t("list") + "|list|" + self.pick("first", "last", "min", "max") + "|default(0)", lambda: t("number") + " ** 2 if " + t("bool") + " else 5",
        )()

    def typed_bool(self, depth):
        if depth <= 0:
            return self.pick("true", "false", "tools", "missing", "bos_token is defined", "tools is none", "add_generation_prompt")
        t = lambda kind: self.typed(kind, depth - 1)  # noqa: E731
        return self.pick(
            lambda: t("any") + self.pick(" == ", " != ") + t("any"), lambda: t("number") + self.pick(" < ", " <= ", " > ", " >= ") + t("number"), lambda: t("string") + self.pick(" < ", " in ", " not in ", " >= ") + t("string"), lambda: t("any") + self.pick(" in ", " not in ") + t("list"), lambda: t("string") + " in " + t("dict"), lambda: "not " + t("any"), lambda: t("any") + self.pick(" and ", " or ") + t("any"),
            lambda: t("any") + " is " + self.pick("", "not ") + self.pick("defined", "undefined", "none", "string", "number", "integer", "float", "boolean", "mapping", "sequence", "iterable", "true", "false", "callable", "eq(1)", "sameas none", "in([1, 'a'])", "lower", "upper", "equalto 'a'"), lambda: t("number") + " is " + self.pick("gt(1)", "le 2", "lessthan(3)", "ne 1"), lambda: t("string") + "." + self.pick("startswith('a')", "endswith(('c', 'd'))", "isdigit()", "isalpha()", "isupper()", "islower()", "istitle()", "isspace()", "isalnum()"), lambda: t("words") + " < " + t("words") + "|list" if False else t("number") + " < " + t("number") + " < " + t("number"),
        )()

    def typed_list(self, depth):
        if depth <= 0:
            return self.random.choice(self.LISTS)
        t = lambda kind: self.typed(kind, depth - 1)  # noqa: E731
        return self.pick(
            lambda: "[" + t("number") + ", " + t("number") + "]", lambda: t("list") + "|list + [" + t("number") + "]", lambda: t("list") + "|" + self.pick("sort", "sort(reverse=true)", "reverse", "unique", "list", "map('string')|map('length')", "select", "reject('gt', 2)", "select('lt', 2)", "map('abs')") + "|list", lambda: t("list") + "[%s:%s%s]" % (self.pick("", "0", "1", "-2", "9"), self.pick("", "2", "-1"), self.pick("", "", ":", ":2", ":-1")),
            lambda: t("words") + "|map('length')|list", lambda: "range(%d, %d, %d)" % (self.random.randint(-3, 5), self.random.randint(-3, 8), self.pick(1, 2, -1, 3)),
        )()

    def typed_words(self, depth):
        if depth <= 0:
            return self.random.choice(self.WORDS)
        t = lambda kind: self.typed(kind, depth - 1)  # noqa: E731
        return self.pick(
            lambda: "[" + t("string") + ", " + t("string") + "]", lambda: t("words") + "|" + self.pick("sort", "sort(case_sensitive=true)", "reverse", "unique", "unique(case_sensitive=true)", "map('upper')", "map('trim')", "map('replace', 'a', 'b')", "reject('equalto', 'a')", "select('in', ['a', 'b'])", "select('string')", "batch(2)|map('first')") + "|list",
            lambda: t("string") + "." + self.pick("split()", "split(',')", "split(' ', 1)", "rsplit('a', 1)", "splitlines()", "partition('b')|list", "rpartition(' ')|list", "rsplit()"), lambda: t("string") + "|list", lambda: t("dict") + ".keys()|map('string')|list", lambda: t("list") + "|map('string')|list",
        )()

    def typed_dict(self, depth):
        if depth <= 0:
            return self.random.choice(self.DICTS)
        t = lambda kind: self.typed(kind, depth - 1)  # noqa: E731
        return self.pick(lambda: "{'a': " + t("any") + ", " + t("string") + ": " + t("any") + "}", lambda: "dict(x=" + t("any") + ")", lambda: "dict(" + t("dict") + ".items())", lambda: t("dict") + ".copy()", lambda: t("records") + "|first|default({})")()

    def typed_records(self, depth):
        if depth <= 0:
            return self.random.choice(self.RECORDS)
        t = lambda kind: self.typed(kind, depth - 1)  # noqa: E731
        return self.pick(lambda: t("records") + "|" + self.pick("selectattr('role')", "selectattr('a', 'defined')", "rejectattr('role', 'equalto', 'user')", "selectattr('role', 'in', ['user', 'tool'])", "reverse", "selectattr('content', 'string')", "sort(attribute='role')") + "|list", lambda: "[" + t("dict") + ", " + t("dict") + "]")()

    def typed_any(self, depth):
        kind = self.pick("string", "string", "number", "bool", "list", "words", "dict", "records")
        if self.random.random() < 0.2:
            t = lambda k: self.typed(k, depth - 1)  # noqa: E731
            return self.pick(
                lambda: "none", lambda: "missing", lambda: t("dict") + ".a", lambda: t("dict") + "['b']", lambda: t("dict") + ".get('a', %s)" % t("any"), lambda: t("dict") + "|items|list", lambda: t("dict").replace("1: 2, ", "") + "|dictsort", lambda: t("records") + "|groupby('role')", lambda: t("list") + "|list|batch(2)|list", lambda: t("list") + "|slice(2, 'f')|list",
                lambda: t("any") + " if " + t("bool"), lambda: t("any") + "|default('d', true)", lambda: "(" + t("any") + ", " + t("any") + ")", lambda: t("words") + "|first", lambda: t("list") + "|list|last", lambda: t("string") + "[0]", lambda: "namespace(a=" + t("any") + ").a", lambda: "x", lambda: "a", lambda: t("string") + "|e", lambda: t("words") + "[-1]",
            )() if depth > 0 else self.pick("none", "missing", "x", "a")
        return self.typed(kind, depth)

    def expression(self, depth):
        return self.typed("any", depth) if self.random.random() < 0.98 else self.wild(depth)

    def wild(self, depth):
        if depth <= 0:
            return self.pick(self.literal, self.literal, self.name)()
        e = lambda: self.expression(depth - self.random.randint(1, 2))  # noqa: E731
        kind = self.random.randint(0, 19)
        if kind <= 2:
            return "%s %s %s" % (e(), self.pick("+", "-", "*", "//", "%", "/", "~", "~", "~", "**"), e())
        if kind == 3:
            return "(%s)" % e()
        if kind == 4:
            return "%s %s %s" % (e(), self.pick("==", "!=", "<", "<=", ">", ">=", "in", "not in"), e())
        if kind == 5:
            return "%s %s %s" % (e(), self.pick("and", "or"), e())
        if kind == 6:
            return "not %s" % e()
        if kind == 7:
            return "%s if %s%s" % (e(), e(), self.pick("", " else " + e()))
        if kind <= 11:
            return "(%s)|%s" % (e(), self.filter(depth))
        if kind == 12:
            return "(%s) is %s%s" % (e(), self.pick("", "not "), self.test())
        if kind == 13:
            return "(%s).%s" % (e(), self.method())
        if kind == 14:
            return "(%s)[%s]" % (e(), self.pick("0", "-1", "1", "'a'", "'role'", "9", "true"))
        if kind == 15:
            bound = lambda: self.pick("", "", "0", "1", "-1", "2", "-2", "5")  # noqa: E731
            return "(%s)[%s:%s%s]" % (e(), bound(), bound(), self.pick("", "", ":", ":2", ":-1", ":-2"))
        if kind == 16:
            return "[%s]" % ", ".join(e() for _ in range(self.random.randint(0, 3)))
        if kind == 17:
            return "{%s}" % ", ".join("%s: %s" % (self.pick("'a'", "'b'", "1", "'k'"), e()) for _ in range(self.random.randint(0, 3)))
        if kind == 18:
            return self.pick("range(%d)|list" % self.random.randint(0, 6), "dict(a=%s)" % e(), "namespace(a=%s).a" % e(), "-(%s)" % e(), "messages[0].role", "messages|length", "(%s, %s)" % (e(), e()), "m1(%s)" % e(), "m2(%s, b=%s)" % (e(), e()), "messages[-1]['content']")
        return "(%s).%s" % (e(), self.pick("a", "b", "role", "content", "x", "0"))

    def filter(self, depth):
        arg = lambda: self.expression(0)  # noqa: E731
        return self.pick(
            "upper", "lower", "title", "capitalize", "trim", "length", "list", "string", "first", "last", "sort", "reverse|list", "unique|list", "join", "join(', ')", "join('-')", "int", "float", "abs",
            "round", "sum", "min", "max", "tojson", "tojson(indent=2)", "tojson(sort_keys=true)", "tojson(ensure_ascii=true)", "default('d')", "default(%s, true)" % arg(), "d('')", "replace('a', %s)" % arg(), "indent", "indent(2, true)",
            "items|list", "dictsort", "map('upper')|list", "map(attribute='a')|list", "select('string')|list", "reject('none')|list", "selectattr('a')|list", "selectattr('a', 'defined')|list", "rejectattr('b', 'defined')|list",
            "batch(2)|list", "slice(2)|list", "groupby('a')", "wordcount", "truncate(5)", "count", "map('string')|join", "select|list", "e", "escape", "int(7)", "round(1)", "round(1, 'floor')", "sort(reverse=true)", "center(7)",
            "map('length')|list", "select('odd')|list", "map('default', 'q')|list", "string|length", "map(attribute='a', default=0)|sum", "sort(attribute='a')", "list|tojson", "format(1)", "trim('a ')", "map('tojson')|join(', ')", "nosuch")

    def test(self):
        return self.pick(
            "defined", "undefined", "none", "string", "number", "integer", "float", "boolean", "mapping", "sequence", "iterable", "true", "false", "odd", "even", "divisibleby(2)", "eq(1)", "ne('a')", "lt(2)", "in([1, 'a'])",
            "sameas(true)", "upper", "lower", "callable", "equalto('a')", "ge 1", "filter", "test", "gt 1", "greaterthan(0)")

    def method(self):
        return self.pick(
            "upper()", "lower()", "strip()", "lstrip()", "rstrip('c ')", "split()", "split(',')", "split(',', 1)", "rsplit(' ', 1)", "startswith('a')", "endswith(('c', 'b'))", "replace('a', 'z')", "find('b')", "title()", "capitalize()", "splitlines()",
            "isdigit()", "isalpha()", "items()|list", "keys()|list", "values()|list", "get('a')", "get('zz', 'none')", "count('a')", "index('a')", "join(['x', 'y'])", "partition(',')", "format(1, 2)", "removeprefix('a')", "zfill(4)", "append(1)", "update({})", "copy()", "islower()", "swapcase()", "center(5)", "isupper()", "casefold()")

    def target(self):
        return self.pick("a", "b", "c", "x", "text", "items")

    def text(self):
        return self.pick("", " ", "\n", "  \n", "foo", " bar\n", "\n\n", "ä ", "{ ", "} ", "% ", "# ", "\t", "x y\n  ", "\n    ")

    def open(self):
        return self.pick("{%", "{%", "{%-", "{%+") + " "

    def close(self):
        return " " + self.pick("%}", "%}", "-%}", "+%}")

    def tag(self, body):
        return self.open() + body + self.close()

    def output(self, depth):
        return self.pick("{{ ", "{{- ", "{{ ") + self.expression(depth) + self.pick(" }}", " -}}", "}}")

    def block(self, depth, loop=False):
        return "".join(self.statement(depth, loop) for _ in range(self.random.randint(1, 3)))

    def statement(self, depth, loop=False):
        kind = self.random.randint(0, 23)
        before = self.text()
        if depth <= 0 or kind <= 8:
            return before + self.output(self.random.randint(0, 3))
        body = lambda inner=loop: self.block(depth - 1, inner)  # noqa: E731
        if kind <= 11:
            orelse = self.pick("", self.tag("else") + body(), self.tag("elif " + self.expression(1)) + body() + self.tag("else") + body())
            return before + self.tag("if " + self.expression(2)) + body() + orelse + self.tag("endif")
        if kind <= 14:
            source = self.pick("messages", "[1, 2, 3]", "range(3)", "'abc'", "items", "{'a': 1, 'b': 2}.items()", "[(1, 2), (3, 4)]", self.typed("list", 2), self.typed("words", 2), self.typed("dict", 2) + ".items()", self.typed("records", 1))
            target = "k, v" if source.endswith("items()") or "(1, 2)" in source else self.pick("x", "a", "c")
            test = self.pick("", "", " if " + self.expression(1))
            meta = self.pick("", "{{ loop.index }}", "{{ loop.last }}", "{{ loop.length }}", "{{ loop.nextitem }}", "{{ loop.cycle(1, 2) }}", "{{ loop.first }}{{ loop.revindex }}", "{{ loop.previtem }}", "{{ loop.changed(x) }}", "{{ x }};")
            orelse = self.pick("", "", self.tag("else") + body())
            return before + self.tag("for %s in %s%s" % (target, source, test)) + meta + body(True) + orelse + self.tag("endfor")
        if kind <= 17:
            return before + self.tag("set %s = %s" % (self.target(), self.expression(2)))
        if kind == 18:
            return before + self.tag("set %s%s" % (self.target(), self.pick("", " | upper", " | trim | replace('a', 'e')"))) + body() + self.tag("endset")
        if kind == 19:
            return before + self.pick(self.tag("if ns is defined") + self.tag("set ns.v = %s" % self.expression(1)) + "{{ ns.v }}" + self.tag("endif"), self.tag("set a, b = 1, %s" % self.expression(1)))
        if kind == 20:
            return before + self.tag("filter %s" % self.pick("upper", "trim", "indent(2)", "replace('a', 'b')|title")) + body() + self.tag("endfilter")
        if kind == 21:
            return before + self.tag("with %s = %s" % (self.target(), self.expression(1))) + body() + self.tag("endwith")
        if kind == 22 and loop:
            return before + self.tag("if " + self.expression(1)) + self.tag(self.pick("break", "continue")) + self.tag("endif")
        return before + self.pick(
            self.tag("call m3(%s)" % self.expression(1)) + body(False) + self.tag("endcall"), "{# note #}", "{#- note -#}", self.tag("raw") + "{{ x }}{%" + self.tag("endraw"), self.tag("generation") + body(False) + self.tag("endgeneration"),
            self.tag("macro m1(q, r=1)") + body(False) + "{{ q }}{{ r }}" + self.tag("endmacro"))

    def template(self):
        head = ""
        if self.random.random() < 0.95:
            head = "{% set ns = namespace(v=0) %}{% macro m1(q) %}[{{ q }}]{% endmacro %}{% macro m2(a, b='B') %}{{ a }}{{ b }}{% endmacro %}{% macro m3(z) %}{{ z }}<{{ caller() }}>{% endmacro %}"
        if self.random.random() < 0.95:
            head += "{% set items = [1, 'two', none] %}{% set text = ' some Text, here ' %}"
        return head + self.block(self.random.randint(1, 3)) + self.block(2) + self.text()

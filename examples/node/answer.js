// Three lines to a first answer; the router chooses the experts.
const { ExpertEngine } = require('@hivellm/expert');
const engine = new ExpertEngine();
engine.infer({ prompt: 'Find all users older than 25', schema: 'users(id,name,age)', maxTokens: 64 }).then((result) => console.log(result.output));

export * from './index.js';
import * as expert from './index.js';
export default expert;
